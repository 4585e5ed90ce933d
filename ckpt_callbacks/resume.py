"""Resume: which snapshot a run carries on from, and the report of what came back."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ckpt_callbacks.engine import Monitor, Past, best_values, found_again
from ckpt_callbacks.errors import (
    CheckpointError,
    CorruptSnapshotError,
    ResumeError,
    StoreError,
    UnreachableError,
)
from ckpt_callbacks.messages import say, warn
from ckpt_callbacks.proof import Outcome
from ckpt_callbacks.run import Problem, Snapshot, Verification, resolve_reference
from ckpt_callbacks.state.files import payload
from ckpt_callbacks.state.memory.pages import fresh
from ckpt_callbacks.store import LocalStore, Manifest, load_directory, senseless, unless_newer

__all__ = [
    "Choice",
    "Placing",
    "Restored",
    "ResumeReport",
    "abandoned",
    "choose",
    "differences",
    "is_own",
    "load",
    "past_of",
    "spare_weights",
    "step_over",
    "step_over_weights",
]


Placing = Callable[[], AbstractContextManager[None]]
"""Lets an error say of which snapshot it is: see `Restored.placing`."""


@dataclass(frozen=True)
class Restored:
    """A snapshot, read back.

    Attributes:
        snapshot: where it came from.
        weights: the model's tensors by the framework's own names.
        rest: everything else, as the adapter captured it; None if the snapshot holds weights only.
        missing: parts that were not captured -> why.
        named: whether the user named this very one. A run that had stopped by itself (early stopping) then goes on.
    """

    snapshot: Snapshot
    weights: Mapping[str, Any]
    rest: Mapping[str, Any]
    missing: Mapping[str, str]
    named: bool = False

    @property
    def where(self) -> Any:
        """The place in the framework's loop where the state was captured. ResumeError: it does not say."""
        with self.placing():
            return self.rest["where"]

    def is_over(self, stopped: bool) -> bool:
        """Whether nothing is left to train, if the framework had ``stopped`` by itself (early stopping): a snapshot
        that the user names is one to go on from."""
        return stopped and not self.named

    @contextlib.contextmanager
    def placing(self) -> Iterator[None]:
        """Let whatever goes wrong while the state is put back say of which snapshot it is, and what can be done.

        Raises:
            ResumeError: from the error that was met.
            CorruptSnapshotError: as it was met.
        """
        try:
            yield
        except (ResumeError, CorruptSnapshotError) as error:
            if self.snapshot.id in str(error):
                raise
            raise type(error)(f"{self.snapshot.path}: {error}") from error
        except (CheckpointError, MemoryError):
            raise
        except Exception as error:
            raise ResumeError(
                f"{self.snapshot.path} can't be put back into this training: {type(error).__name__}: {error}. "
                "Either the program or its packages are no longer those that saved it, or it is not what a program "
                "has saved. To go on from another snapshot, name it with resume= (`ckpt ls` lists them)."
            ) from error


@dataclass(frozen=True)
class Choice:
    """A snapshot to carry on from, verified and read.

    Attributes:
        restored: what an adapter puts back.
        origin: the reference with which the user began this line of training, or None.
    """

    restored: Restored
    origin: str | None = None

    @property
    def snapshot(self) -> Snapshot:
        """Which one."""
        return self.restored.snapshot


@dataclass
class ResumeReport:
    """What a resume restored (`Checkpointer.resumed`).

    Attributes:
        snapshot: the snapshot that the run carried on from.
        step, epoch, batch: where it carried on (optimizer steps; epochs completed; batches done in this epoch).
        skipped: batches that were passed over by their index, without loading them, to reach the data's position.
        replayed: batches that were drawn again from the data source to reach it.
        seconds: how long both took.
        parts: each part of the state -> "exact", "skipped: ...", "replayed: ..." or "not captured: why".
        complete: True if the run had nothing left to do.
        differences: what of versions, devices and machine is not as it was when the snapshot was taken
            -> (then, now). Bits may differ because of it.
        proof: what comparing the steps computed again with those before the crash gave; None until it is known, or if
            there was nothing to compare.
    """

    snapshot: Snapshot
    step: int
    epoch: int
    batch: int
    skipped: int = 0
    replayed: int = 0
    seconds: float = 0.0
    parts: dict[str, str] = field(default_factory=dict)
    complete: bool = False
    differences: dict[str, tuple[str, str]] = field(default_factory=dict)
    proof: Outcome | None = None

    def __str__(self) -> str:
        """Give the one line that the user sees at resume."""
        where = f"step {self.step} (epoch {self.epoch}, batch {self.batch})"
        if self.complete:
            return (
                f"this run is already complete: {self.snapshot.id} at {where} is restored, nothing is left to train. "
                "To train on, raise the number of epochs, or name the snapshot with resume= if the run had stopped by "
                "itself; to start afresh, choose another directory"
            )
        moved = {"skipped by index": self.skipped, "replayed with loading": self.replayed}
        batches = [f"{count} batches {how}" for how, count in moved.items() if count]
        place = f", {' and '.join(batches)} in {self.seconds:.1f} s" if batches else ""
        missing = [name for name, how in self.parts.items() if how.startswith("not captured")]
        lost = f"; not captured: {', '.join(missing)}" if missing else ""
        return f"resumed from {self.snapshot.id} at {where}{place}{lost}"

    def changed(self) -> str:
        """What is not as it was when the snapshot was taken, in words."""
        return ", ".join(f"{name} ({then} -> {now})" for name, (then, now) in self.differences.items())

    def likely_causes(self, determinism: str) -> list[str]:
        """Why steps may give other bits than before the crash, the most likely first.

        Args:
            determinism: how the framework is asked for kernels that give the same bits each time.
        """
        kernels = [f"kernels that are not deterministic ({determinism} asks for others)"]
        on_cpu = "cpu" in str(self.snapshot.manifest.provenance.get("machine", {}).get("devices", ""))
        lost = [name for name, how in self.parts.items() if how.startswith("not captured")]
        return [
            *([f"what could not be captured ({', '.join(lost)})"] if lost else []),
            *([f"what is not as it was: {self.changed()}"] if self.differences else []),
            *([] if on_cpu else kernels),
            "state that no callback can see, such as global variables, caches and files",
            "data or code that changed since",
            *(kernels if on_cpu else []),
        ]


def choose(
    store: LocalStore, policy: str, *, reads: tuple[str, ...], load: str | Path | None, first: bool
) -> Choice | None:
    """Find the snapshot to carry on from; None means to start fresh.

    Args:
        store: the run's own.
        policy: ``"auto"``, ``"must"``, ``"never"`` or a reference, as in ``Checkpointer(resume=...)``.
        reads: whose snapshots can be carried on from.
        load: a snapshot that the user named for this fit; it wins over ``policy``.
        first: whether this is the callback's first fit: ``"never"`` speaks of what was there before it.

    Raises:
        ResumeError: ``"must"`` without a snapshot, ``"never"`` with a run, a snapshot of weights only or of another
            framework.
        SnapshotNotFoundError, CorruptSnapshotError: about a snapshot that was named.
    """
    reference = load if load is not None else None if policy in ("auto", "must", "never") else policy
    if reference is not None:
        return _named(store, reference, reads)
    if policy == "never" and first:
        if store.manifests():
            raise ResumeError(
                f"resume='never', but {store.root} already holds a run. "
                "Choose another directory, delete this one, or pass resume='auto' to carry on."
            )
        return None
    found = _newest_good(store, reads)
    if found is None and policy == "must":
        raise ResumeError(
            f"resume='must', but {store.root} holds no good full snapshot. "
            "Check the directory, or pass resume='auto' to start fresh when there is none."
        )
    return found


def abandoned(store: LocalStore, choice: Choice | None) -> tuple[tuple[int, int], ...]:
    """The ranges of snapshots (by sequence) that training leaves behind if it carries on from ``choice``: what this
    one had left behind, and all that was saved after it. Starting fresh, or from another run, leaves all behind."""
    newest = max((manifest.sequence for manifest in store.manifests()), default=0)
    before: tuple[tuple[int, int], ...] = ()
    since = 0
    if choice is not None and is_own(store, choice.snapshot):
        before, since = choice.snapshot.manifest.abandoned, choice.snapshot.manifest.sequence
    return (*before, (since + 1, newest)) if newest > since else before


def past_of(
    store: LocalStore,
    choice: Choice,
    abandoned: Sequence[tuple[int, int]],
    monitors: Sequence[Monitor],
    promised: Sequence[Monitor] = (),
) -> Past:
    """What decisions remember if training carries on from ``choice``: what that snapshot says.

    Best values are what rules and `restore_best` can find again. So who goes back, or forks, remembers the best of the
    snapshots that there are on the line that is left; others were deleted for the sake of what is left behind. And who
    carries on forgets what was lost: a best value of those ``promised`` to be saved and kept, that no snapshot has.
    """
    manifest = choice.snapshot.manifest
    past, own = Past.from_dict(manifest.past), is_own(store, choice.snapshot)
    records = store.records(abandoned) if own else []
    if own and tuple(abandoned) == tuple(manifest.abandoned):
        return found_again(past, records, promised)
    return replace(past, best=best_values(records, monitors))


def is_own(store: LocalStore, snapshot: Snapshot) -> bool:
    """Whether a snapshot lies in the store and its run has taken it; to carry on from any other is a fork."""
    here = snapshot.run_path.resolve() == store.root.resolve()
    return here and any(one.id == snapshot.id for one in store.own())


def load(snapshot: Snapshot) -> Restored:
    """Read the very snapshot that the user named.

    Raises:
        CorruptSnapshotError: it does not verify, or can't be read.
        UnreachableError: only a later version of this package can read it.
    """
    files, problems = load_directory(snapshot.path, fresh)
    Verification((snapshot.id,), tuple(Problem(snapshot.id, text) for text in problems)).require_ok()
    reduced = all(map(payload.of_weights, files))  # maybe since the snapshot was looked up
    with unless_newer(snapshot.manifest.versions):
        weights, rest, missing = payload.read(files, snapshot.path, "weights" if reduced else snapshot.content)
    return Restored(snapshot, weights, rest, missing, named=True)


def step_over(store: LocalStore, bad: str, problems: Sequence[str], *, aside: bool = True) -> None:
    """Say that a snapshot is stepped over, and set it ``aside`` if it is damaged; one of a later version is not."""
    place = None
    if aside and store.is_damaged(bad):
        with contextlib.suppress(StoreError):
            place = str(store.set_aside(bad).relative_to(store.root))
    where = f" It is set aside as {place}" if place else ""
    warn(f"stepped over snapshot {bad}: {' '.join(problems)}{where}")
    store.journal.append("stepped over", id=bad, problems=list(problems), aside=place)


def step_over_weights(store: LocalStore, snapshot: Snapshot, error: StoreError, *, aside: bool) -> None:
    """The same for one whose weights could not be read: that may be no damage."""
    problems: Sequence[Problem] = ()
    with contextlib.suppress(StoreError):  # it is gone
        problems = snapshot.verify().problems
    damage = any(one.damage for one in problems) if problems else isinstance(error, CorruptSnapshotError)
    step_over(store, snapshot.id, [one.text for one in problems] or [str(error)], aside=aside and damage)


def spare_weights(store: LocalStore, deadly: str, deaths: int) -> None:
    """Say that the weights of a snapshot are not put into the model, since processes died of it, and how they are."""
    problem = f"{deaths} processes in a row died while they put its weights into the model."
    warn(
        f"stepped over snapshot {deadly}: {problem} It stays as it is, and is stepped over by restore_best until "
        f"`ckpt repair {store.root}` was run"
    )
    store.journal.append("stepped over", id=deadly, problems=[problem], aside=None)


def differences(snapshot: Snapshot, now: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """What is known of where ``snapshot`` was taken and of where it is resumed, and is not the same.

    Args:
        snapshot: tells the versions and the machine of then.
        now: versions, devices and machine of now, by the same names.
    """
    manifest = snapshot.manifest
    then = {**manifest.versions, **manifest.provenance.get("machine", {})}
    return {name: (then[name], now[name]) for name in then.keys() & now.keys() if then[name] != now[name]}


def _named(store: LocalStore, reference: str | Path, reads: tuple[str, ...]) -> Choice:
    """Exactly the named snapshot, or an error - but a line of training that was begun from it, here or by a fork, and
    has snapshots of its own by now was killed, and carries on with those, even if its origin is gone."""
    own = store.own()
    begun = bool(own) and own[-1].origin is not None and _same(own[-1].origin, reference)
    if begun and (newest := _newest_good(store, reads)) is not None:
        say(f"{reference} began this line of training before; it carries on. Another reference begins one anew")
        return newest
    snapshot = resolve_reference(reference)
    elsewhere = snapshot.run_path.resolve() != store.root.resolve()
    if elsewhere and own:
        say(f"{store.root} holds {len(own)} snapshots of another line of training, which {reference} leaves behind")
    restored = load(_readable(snapshot, reads))
    if restored.rest is None:
        raise ResumeError(
            f"{snapshot.id} holds weights only, which training can't carry on from. Name a full snapshot, or load "
            "its weights into a new run with ckpt_callbacks.torch.load_weights / ckpt_callbacks.keras.load_weights."
        )
    if not elsewhere:
        store.attempts.forgive(snapshot.id)
    return Choice(restored, origin=str(reference))


def _same(origin: str, reference: str | Path) -> bool:
    """Whether two references are the same, as far as can be told without looking at what they name."""
    return os.path.abspath(origin) == os.path.abspath(reference)


def _newest_good(store: LocalStore, reads: tuple[str, ...]) -> Choice | None:
    """The newest full snapshot that verifies, and that processes survive to load - unless no other is left."""
    there = {*store.problems(), *(one.id for one in store.manifests())}
    deadly = store.attempts.settle(there)
    found = _search(store, reads, deadly)
    if found is None and deadly:
        _try_again(store, deadly)
        found = _search(store, reads, {})
    if found is None:
        _begin_afresh(store)
    return found


def _search(store: LocalStore, reads: tuple[str, ...], deadly: Mapping[str, int]) -> Choice | None:
    """The newest full snapshot that verifies, can be read and is none of the ``deadly``."""
    read: dict[str, Any] = {}

    def check(id: str) -> list[str]:
        read.clear()  # before others are read
        if id in deadly:
            return [f"{deadly[id]} processes in a row died while they loaded it."]
        store.attempts.begin(id)
        files, problems = store.load(id, fresh)
        if problems:
            return problems

        def decode(directory: Path, _: Manifest) -> None:
            read["weights"], read["rest"], read["missing"] = payload.read(files, directory)

        return senseless(store.path(id), store.manifest(id), decode)

    try:
        found, stepped_over = store.newest_good("full", check=check)
    except UnreachableError as error:
        raise UnreachableError(f"{error} To go on from an older snapshot, name it with resume=.") from error
    for bad, problems in stepped_over:
        if bad not in deadly:
            step_over(store, bad, problems)
        elif found is not None:
            _spare(store, bad, problems)
    if found is None:
        return None
    store.attempts.pause()  # it is read; the user's code goes on
    return Choice(Restored(_readable(Snapshot(found, store.path(found.id)), reads), **read), origin=found.origin)


def _try_again(store: LocalStore, deadly: Mapping[str, int]) -> None:
    """Say that the only snapshots left are those of which processes die: to start afresh would lose more."""
    died = ", ".join(f"{id} ({deaths} in a row)" for id, deaths in deadly.items())
    warn(
        f"{store.root} has no good snapshot but those that processes died of while they loaded them: {died}. The "
        "newest is tried again. If this process dies too, look for what killed it (dmesg: was memory full?) and "
        "mend that; another directory starts afresh"
    )


def _begin_afresh(store: LocalStore) -> None:
    """Say that training starts from the beginning though there was something to carry on from."""
    if store.manifests():
        named = "" if store.own() else ". Those of another run are carried on from if resume= names one"
        warn(f"{store.root} has no good full snapshot to carry on from: starting fresh beside what is there{named}")
    elif aside := store.aside():
        warn(
            f"{store.root} has no snapshot to carry on from, only damaged ones that were set aside, "
            f"{', '.join(path.name for path in aside[-3:])}: training starts from the beginning"
        )


def _spare(store: LocalStore, deadly: str, problems: Sequence[str]) -> None:
    """Say that a snapshot of which processes die is stepped over, and how it is not."""
    warn(
        f"stepped over snapshot {deadly}: {' '.join(problems)} It stays as it is, and is stepped over until "
        f"resume='{store.root}@{deadly}' tries it once more, or `ckpt repair {store.root}` was run"
    )
    store.journal.append("stepped over", id=deadly, problems=list(problems), aside=None)


def _readable(snapshot: Snapshot, reads: tuple[str, ...]) -> Snapshot:
    found = snapshot.manifest.framework
    if found is not None and found not in reads:  # where nobody says, what is inside it tells whether it fits
        raise ResumeError(
            f"{snapshot.path} was written by {found}, and this callback carries on only from {' or '.join(reads)}. "
            "Train in another directory."
        )
    return snapshot
