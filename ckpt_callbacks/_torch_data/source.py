"""One loader of training's: hands out its batches, knows its place, and returns there.

What an iteration draws is fixed by a few things: the random states (global ones and those that the loader holds) and
the plain attributes of sampler and data set just before it began, the states that later draws must find where something
else drew in between (`Splices`), and the states inside workers. All of them are noted on the way. To return, they are
put back, and the batches before the place are passed over: by index where that tells all, else by loading them again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from ckpt_callbacks._torch_data import memory, private
from ckpt_callbacks._torch_data.splices import Splices, same
from ckpt_callbacks._torch_data.workers import Stamp, Stamped, Start
from ckpt_callbacks.errors import ResumeError
from ckpt_callbacks.messages import steps, warn
from ckpt_callbacks.state import random_state

__all__ = ["Place", "Source"]

T = TypeVar("T")

Place = dict[str, Any]

_DATASET = "['dataset']"  # a step of a path into a loader's parts


class Source:
    """Stands where a framework would iterate a loader; its own iterator.

    Args:
        loader: a torch `DataLoader`, or any iterable.

    Attributes:
        taken: batches handed out in this iteration.
        ended: whether this iteration has come to its end.
        ahead: whether a batch is fetched before the one before it is used. What that changes is put back only after it
            is fetched again. To be set by who fetches.
        ends: how many iterations came to their end; whoever iterates several loaders at once counts from 0.
        skipped, replayed: batches that the last return passed over by index, and by loading them again.
    """

    def __init__(self, loader: Any) -> None:
        self.loader = loader
        self.taken = self.ends = self.skipped = self.replayed = 0
        self.ended = self.ahead = False
        self._by_index = private.by_index(loader)
        self._has_workers = private.is_plain(loader) and loader.num_workers > 0
        self._lives_on = self._has_workers and loader.persistent_workers
        self._stamped = self._has_workers and (self._lives_on or (self._by_index and private.can_start_late(loader)))
        self._parts = _parts(loader)
        self._configured = memory.outline(self._parts)
        self._unsaved: dict[str, str] = {}  # of these, what can't be stored -> why
        self._kept_iterators: list[str] = []  # of the data set's own, older than this iteration
        self._iterator: Any = None
        self._follower = _Follower(None, {}, {})
        self._memory: memory.Memory | None = None
        self._unnoted = 0  # uses that it sleeps through
        self._read: dict[str, Any] = {}  # what loads batches in this process
        self._drawn: dict[str, Any] = {}  # the states of its generators when the iteration began
        self._begin: dict[str, Any] | None = None  # just before this iteration began
        self._birth: dict[str, Any] | None = None  # just before the iteration that the living workers were born in
        self._before: Place | None = None
        self._asleep: dict[int, Any] | None = None  # states of workers of an earlier process, to be woken first

    # The iterable --------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Source:
        if self._asleep is not None:
            assert self._birth is not None
            here = _note(self.loader, memory.values(self._parts, self._birth["values"]))
            self._wake(self._asleep)
            self._put_back(here)
        if self._iterator is self.loader and self._iterator is not None:
            iter(self.loader)  # an iterator itself: it goes on where it stands
            self.ended = False
            return self
        # How the last iteration went, as long as not all workers have told how they began this one.
        last = self.place() if self._moves() else None
        self._before = last and {**last, "before": None}
        self._begin = _note(self.loader, self.values())
        before = memory.iterators(self._parts)
        self._start()
        after = memory.iterators(self._parts) if before and private.is_plain(self.loader) else {}
        if not self._has_workers or self._lives_on:
            self._kept_iterators = [path for path, one in after.items() if one is before.get(path)]
        return self

    def __next__(self) -> Any:
        if self.ended:
            raise StopIteration
        try:
            batch = self._load()
        except StopIteration:
            self.ended = True
            self.ends += 1
            raise
        self.taken += 1
        return batch

    def stop(self) -> None:
        """Let go of the iterator, and of its workers with it."""
        self._iterator = None

    # Its place -----------------------------------------------------------------------------------------------------

    def place(self) -> Place | None:
        """Where the iteration stands; None before the first.

        The first few batches are loaded again in any case: only then is it known whether the data set remembers.
        """
        if self._begin is None:
            return None
        return {
            "begin": self._begin,
            "birth": None if self._birth is self._begin else self._birth,
            "splices": self._follower.splices.kept if self._follower.splices else {},
            "taken": self.taken,
            "ended": self.ended,
            "ends": self.ends,
            "skip": self._can_skip() and self.taken > 2 * max(1, getattr(self.loader, "num_workers", 0)),
            "num_workers": getattr(self.loader, "num_workers", 0),
            "workers": {"begun": dict(self._follower.begun), "used": dict(self._follower.used)},
            "moves": self._moves(),
            "before": None if len(self._follower.reported) == getattr(self.loader, "num_workers", 0) else self._before,
        }

    def _moves(self) -> bool:
        """Whether what lives on in workers may be other at the end of an iteration than their last batches tell."""
        if not self._lives_on or self._by_index:
            return False
        values = any(state["values"] for state in (*self._follower.begun.values(), *self._follower.used.values()))
        return values or self._follower.moves or memory.sets_attributes(self._parts)

    @property
    def lives_on(self) -> bool:
        """Whether something of an iteration lives on in the next one: workers that are kept, or an iterator."""
        return self._lives_on or self._iterator is self.loader

    def is_adrift(self) -> bool:
        """Whether an iteration was left before its end, with workers ahead of it that draw random numbers and live on:
        how far they get is not known yet."""
        if not self._lives_on or self.ended or self.taken in (0, private.length(self.loader)):
            return False
        begun, used = self._follower.begun, self._follower.used
        return any(not same(begun.get(worker), state) for worker, state in used.items())

    def values(self) -> memory.Values:
        """The attributes of sampler and data set that changed since the loader came."""
        found, self._unsaved = memory.changed(self._parts, self._configured)
        return found

    def put_back_values(self, values: Mapping[str, Any]) -> None:
        """Set the attributes that ``values`` gave."""
        memory.put_back(self._parts, values, self._configured)

    def how(self) -> str:
        """How a return passes over batches, in a few words."""
        return "skipped by index" if self._can_skip() else "replayed with loading"

    def reads_again(self) -> Iterator[Any]:
        """The objects that a return reads once more, where it must load batches again."""
        return iter(()) if self._can_skip() else (value for _, value in memory.held(self._parts))

    def missing(self) -> dict[str, str]:
        """What a return would not bring back exactly -> why, and what to do."""
        lost = {}
        if not private.is_plain(self.loader) and getattr(self.loader, "persistent_workers", False):
            lost["data (persistent_workers)"] = "of a loader with an __iter__ of its own: use False"
        if self._follower.splices and (why := self._follower.splices.lost):
            lost["data (order)"] = f"{why}: give it a generator of its own"
        if self._lives_on and not self._stamped:
            lost["data (persistent_workers)"] = "they live since the loader was used before fit: make a new loader"
        elif self._lives_on and self._follower.remembers:
            lost["data (persistent_workers)"] = f"{self._follower.remembers}: use persistent_workers=False"
        if self._memory is not None and self._memory.look():
            lost["data (data set)"] = "it changes while it is read, and what it remembers of earlier epochs is not kept"
        if self._has_workers and not getattr(self.loader, "in_order", True):
            lost["data (in_order)"] = "batches come as workers finish them: use in_order=True"
        kept = dict.fromkeys(self._kept_iterators, "nobody can tell how far an iterator got: make it in __iter__")
        for path, why in {**self._unsaved, **kept}.items():
            lost[f"data ({path.replace(_DATASET, 'data set')})"] = why
        return lost

    # Back there ----------------------------------------------------------------------------------------------------

    def return_to(self, place: Place) -> None:
        """Begin the iteration of a place again, and go there."""
        if place["before"] is None:
            private.forget_iterator(self.loader)
            now = getattr(self.loader, "num_workers", 0)
            if now != place["num_workers"]:
                warn(f"data came by {place['num_workers']} workers and come by {now} now: random numbers will differ")
        else:
            self.return_to(place["before"])
        self.ends = place["ends"]
        self._begin, self._birth = place["begin"], place["birth"] or place["begin"]
        workers, again = place["workers"], place["ended"] and place["moves"]
        if place["ended"] and self._follows() and not again:
            self.taken, self.ended = place["taken"], True
            self._asleep = {**workers["begun"], **workers["used"]} if self._lives_on else None
            return
        skip = bool(place["skip"]) and self._can_skip()
        used = workers["used"] if skip else {}
        wakes = self._lives_on and place["birth"] is not None and place["before"] is None
        if wakes:
            self._wake({**workers["begun"], **used})
        self._put_back(place["begin"])
        self._start(place["splices"], {} if wakes else used, used, hold_back=skip)
        self._pass_over(place["taken"], skip)
        if again:  # what a data set does when it has no more lets the next iteration begin as it did
            self.ended = next(self, None) is None
            self.ends = place["ends"]

    def _pass_over(self, batches: int, skip: bool) -> None:
        for done in steps(batches, "going back to the place in the data"):
            try:
                if skip:
                    private.pass_over(self._iterator)
                else:
                    next(self)
            except StopIteration:
                raise ResumeError(
                    f"the train loader ended after {done} batches, but the snapshot was taken {batches} batches "
                    "into its epoch. The data got shorter or the batches larger since then: restore the data, or "
                    "start afresh in another directory."
                ) from None
        self.taken = batches
        self.skipped, self.replayed = (batches, 0) if skip else (0, batches)
        if skip:
            self._follower.holds_back = False
            private.start_after(self._iterator, batches)

    def _wake(self, states: Mapping[int, Any]) -> None:
        """Start workers as they were born, to go on from ``states`` in the iteration that begins next."""
        assert self._birth is not None
        self._asleep = None
        self._put_back(self._birth)
        self._follower = _Follower(self._splices({}), states, {}, holds_back=True)
        start = Start(self.loader.worker_init_fn, states, iteration=2)
        self._iterator = private.begin(self.loader, self._follower, start)

    def _put_back(self, begin: Mapping[str, Any]) -> None:
        self.put_back_values(begin["values"])
        random_state.restore(begin["random"])
        random_state.restore_generators(self.loader, begin["generators"])

    # An iteration --------------------------------------------------------------------------------------------------

    def _start(
        self,
        splices: Mapping[int, Any] | None = None,
        states: Mapping[int, Any] | None = None,
        used: Mapping[int, Any] | None = None,
        hold_back: bool = False,
    ) -> None:
        """Begin an iteration.

        Args:
            splices: of the iteration that begins again.
            states: those that new workers take.
            used: the states after the batches that were used already.
            hold_back: send nothing to workers yet.
        """
        self.taken, self.ended = 0, False
        living = private.alive(self.loader) is not None
        if not living:
            self._birth = self._begin
        elif not private.is_followed(private.alive(self.loader)):
            self._stamped = False
        newest = {**self._follower.newest, **(used or {})} if living else dict(used or {})
        self._follower = _Follower(self._splices(splices or {}), newest, used or {}, hold_back)
        if not self._follows():
            self._iterator = iter(self.loader)
            return
        start = Start(self.loader.worker_init_fn, states or {}, iteration=1) if self._stamped else None
        self._iterator = private.begin(self.loader, self._follower, start)
        self._follower.has_begun()
        if self._by_index and not self._has_workers:
            self._read = {"dataset": self.loader.dataset, "collate_fn": self.loader.collate_fn}
            self._drawn = random_state.capture_generators(self._read)
            self._memory, self._unnoted = memory.Memory(self._read, saved=True), 0

    def _follows(self) -> bool:
        """Whether the iterator itself tells what it draws; else all that happens in a fetch counts as a draw."""
        return self._by_index or self._has_workers

    def _splices(self, kept: Mapping[int, Any]) -> Splices:
        if not self._follows():
            return Splices(self.loader, True, kept)
        holders = [self.loader.generator, self.loader.sampler, self.loader.batch_sampler] if self._by_index else []
        return Splices(holders, not private.knows_its_draws(self.loader), kept)

    def _load(self) -> Any:
        if not self._follows():
            return self._follower.draw(self._iterator.__next__)
        if self._memory is None:
            batch = next(self._iterator)
        elif self._unnoted < self._memory.sleeps:
            batch = next(self._iterator)
            self._unnoted += 1
        else:
            batch = self._load_watched(self._memory)
        if type(batch) is Stamped:
            self._follower.use(batch.stamp)
            return batch.batch
        return batch

    def _load_watched(self, memory: memory.Memory) -> Any:
        watched = memory.begun and not memory.draws
        before = _states(self.loader) if watched else None
        batch = next(self._iterator)
        memory.draws = memory.draws or (watched and not same(before, _states(self.loader)))
        memory.used(self._unnoted + 1)
        self._unnoted = 0
        return batch

    def _can_skip(self) -> bool:
        if not self._by_index:
            return False
        if not self._has_workers:
            if self.ahead and self._was_changed_by_reading():
                return False
            return self._memory is None or not self._memory.look()
        in_order = getattr(self.loader, "in_order", True)
        return self._stamped and private.can_start_late(self.loader) and in_order and not self._follower.remembers

    def _was_changed_by_reading(self) -> bool:
        """Whether data set or collate function are not as the iteration found them: the next batch may tell."""
        if self._begin is None:
            return False
        now, began = map(_of_reading, (self.values(), self._begin["values"]))
        return not same(now, began) or not same(random_state.capture_generators(self._read), self._drawn)


class _Follower:
    """What is known of one iteration: the draws, and where the workers' generators stand.

    Attributes:
        splices: the draws.
        newest: worker -> state after the batch that arrived last; ``used``: that training used last; ``begun``: before
            this iteration, for workers that live on; ``reported``: those of whom a batch arrived in this iteration.
        holds_back: whether nothing is sent to workers yet.
        remembers: why the workers' states don't tell all, or "".
        moves: whether data sets in workers were seen to change while they are read.
    """

    def __init__(
        self, splices: Splices | None, newest: Mapping[int, Any], used: Mapping[int, Any], holds_back: bool = False
    ) -> None:
        self.splices, self.holds_back, self.remembers, self.moves = splices, holds_back, "", False
        if splices is not None:
            self.draw = splices.draw
        self.newest, self.used, self.begun = dict(newest), dict(used), dict[int, Any]()
        self.reported: set[int] = set()

    def has_drawn(self, draws: int) -> None:
        """The source drew so often, unseen."""
        assert self.splices is not None
        self.splices.done = draws

    def arrived(self, data: Any) -> None:
        """A worker sent something."""
        if type(data) is not Stamped:
            return
        stamp = data.stamp
        self.reported.add(stamp.worker)
        if stamp.began is not None:
            self.begun[stamp.worker] = stamp.began
        if stamp.state is None:
            stamp.state = self.newest[stamp.worker]
        self.newest[stamp.worker] = stamp.state

    def has_begun(self) -> None:
        """The iteration has begun: what had been asked of living workers before has arrived by now."""
        self.begun, self.reported = dict(self.newest), set()

    def use(self, stamp: Stamp) -> None:
        """Training gets a batch."""
        self.used[stamp.worker] = stamp.state
        self.remembers = self.remembers or stamp.remembers
        self.moves = self.moves or stamp.moves


def _of_reading(values: memory.Values) -> memory.Values:
    """Of the attributes of a loader's parts those that loading a batch may change: samplers go on by themselves."""
    return {path: value for path, value in values.items() if path.startswith((_DATASET, "['collate_fn']"))}


def _states(loader: Any) -> dict[str, Any]:
    """The random states that loading a batch may change."""
    return {"random": random_state.capture(), "generators": random_state.capture_generators(loader)}


def _note(loader: Any, values: memory.Values) -> dict[str, Any]:
    return {
        "random": random_state.capture(),
        "generators": random_state.capture_generators(loader),
        "values": values,
    }


def _parts(loader: Any) -> Any:
    """Where the attributes lie that an order or a batch may depend on."""
    if not private.is_plain(loader):
        return loader
    names = ("dataset", "sampler", "batch_sampler", "collate_fn")
    return {name: getattr(loader, name) for name in names}
