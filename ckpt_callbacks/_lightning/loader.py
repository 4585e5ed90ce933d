"""The train loader that remembers its place in the data, and returns there.

`CombinedLoader` joins one or several loaders. Each is replaced by a `Source`, which knows its own place; `Tape` holds
them together, with what is Lightning's: the fetch ahead, and the instant at which a resumed epoch begins again.

The iterator of a resumed epoch is made at the first fetch, not when Lightning sets fit up: by then samplers know the
epoch, and nothing that runs in between can disturb the order.
"""

from __future__ import annotations

import copy
import functools
import operator
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from ckpt_callbacks._lightning import private
from ckpt_callbacks._torch_data.source import Source
from ckpt_callbacks.errors import ResumeError
from ckpt_callbacks.resume import Placing
from ckpt_callbacks.state import random_state

__all__ = ["Tape", "recording"]


class Tape:
    """How far the current epoch of the train loader got.

    Args:
        prefetches: whether Lightning fetches one batch ahead now (it does if the loader has no length).
        before_fetch: called before each fetch of a running fit: the clean boundary.
        on_the_way: what is to be around a return to a place, which may take long.

    Attributes:
        sources: the loaders that the epoch comes from.
        fetched: batches fetched in this epoch; None between epochs.
        rolls: whether the next fetch is one like the last: nothing is pending, expected or fetched ahead.
        skipped, replayed, seconds: what the last return did: batches passed over by index, or loaded again and dropped.
    """

    def __init__(
        self, prefetches: Callable[[], bool], before_fetch: Callable[[], None], on_the_way: Placing = nullcontext
    ) -> None:
        self.prefetches, self.before_fetch, self._on_the_way = prefetches, before_fetch, on_the_way
        self.sources: Sequence[Source] = ()
        self.fetched = self.replayed = self.skipped = 0
        self.seconds = 0.0
        self.rolls = False
        self._ahead: dict[str, Any] | None = None  # as it was before the last fetch, while one is fetched ahead
        self._pending: dict[str, Any] | None = None
        self._expected: Any = None  # the random state that the next fetch must find
        self._asked: Any = None  # the random state when the user was asked for the loaders
        self._ask_again: Any = None  # the same, of the pending place
        self.placing: Placing = nullcontext  # tells of which snapshot the pending place is
        self._datamodule: Any = None  # what the user's data module called its state then
        self.loader: Any = None  # the recording loader, once it is iterated

    # The part that goes into a snapshot ------------------------------------------------------------------------------

    def as_dict(self, used: int | None) -> dict[str, Any]:
        """The place in the data, when training has used ``used`` batches of this epoch; None between epochs."""
        if self._pending is not None:
            return self._pending
        if used is None:
            return {
                "batches": None,
                "sources": [source.place() if source.lives_on else None for source in self.sources],
                "asked": self._asked,
                "datamodule": self._datamodule,
                "random": None,
            }
        if used < self.fetched:
            assert self._ahead is not None, "Lightning fetches ahead, as it told"
            return self._ahead
        return self._here(random=False)

    def values(self) -> list[Any]:
        """The plain attributes of samplers and data sets that changed since they came."""
        return [source.values() for source in self.sources]

    def put_back_values(self, values: Sequence[Any]) -> None:
        """Set what ``values`` gave."""
        for source, saved in zip(self.sources, values, strict=False):
            source.put_back_values(saved)

    def missing(self) -> dict[str, str]:
        """What the way back would not make exact -> why."""
        return {what: why for source in self.sources for what, why in source.missing().items()}

    def reads_again(self) -> Iterator[Any]:
        """The objects that data sets hold and the way back reads once more."""
        return (value for source in self.sources for value in source.reads_again())

    @property
    def how(self) -> str:
        """How a resume will reach the place, in a few words."""
        ways = sorted({source.how() for source in self.sources})
        return " or ".join(ways) or "no data yet"

    def _here(self, random: bool) -> dict[str, Any]:
        return {
            "batches": self.fetched,
            "sources": [source.place() for source in self.sources],
            "asked": self._asked,
            "datamodule": self._datamodule,
            "random": random_state.capture() if random else None,
        }

    # The way back ----------------------------------------------------------------------------------------------------

    def pend(self, saved: Mapping[str, Any], placing: Placing = nullcontext) -> None:
        """Let the next fetch go to a saved place first; what goes wrong then is told by ``placing``."""
        self._pending, self._ask_again, self.placing, self.rolls = dict(saved), saved["asked"], placing, False

    def ask(self, loaders: Callable[[], Any], datamodule: Any = None) -> Any:
        """Ask the user for the loaders, with the random numbers that made those of the pending place.

        Args:
            loaders: asks.
            datamodule: the user's, if it has a state of its own: that may tell where the data shall begin.
        """
        again, self._ask_again = self._ask_again, None
        self._asked = now = random_state.capture()
        state = self._datamodule = None if datamodule is None else copy.deepcopy(datamodule.state_dict())
        if again is None:
            return loaders()
        assert self._pending is not None
        self._asked, self._datamodule = again, self._pending["datamodule"]
        random_state.restore(again)
        if state is not None and self._datamodule is not None:
            datamodule.load_state_dict(copy.deepcopy(self._datamodule))
        try:
            return loaders()
        finally:
            if state is not None:
                datamodule.load_state_dict(state)
            random_state.restore(now)

    def follow(self, loaders: Sequence[Any]) -> Sequence[Source]:
        """Know these loaders from now on."""
        if [id(source.loader) for source in self.sources] != [id(loader) for loader in loaders]:
            if self.sources and self._pending is not None:
                self._pending["sources"] = []  # those were of the loaders before
            self.sources = [Source(loader) for loader in loaders]
        return self.sources

    def to_place(self) -> None:
        """Go to the pending place now, if there is one: a module that fetches for itself does so within its batch."""
        if self._pending is not None and self.loader is not None:
            with self.placing():
                self.loader.go_back()

    @property
    def pending(self) -> bool:
        """Whether a place waits to be gone to."""
        return self._pending is not None

    def go_back(self) -> int | None:
        """Bring the sources to the pending place; give the batches that were used there, None between epochs."""
        saved, self._pending = self._pending, None
        assert saved is not None
        began, here = time.perf_counter(), random_state.capture()
        places = saved["sources"]
        if places and len(places) != len(self.sources):
            raise ResumeError(
                f"the snapshot was taken with {len(places)} train loaders, and there are {len(self.sources)} now: "
                "restore them, or start afresh in another directory."
            )
        with self._on_the_way():
            for source, place in zip(self.sources, places, strict=False):
                if place is not None:
                    source.return_to(place)
        self.skipped = max((source.skipped for source in self.sources), default=0)
        self.replayed = max((source.replayed for source in self.sources), default=0)
        random_state.restore(here)  # whoever puts a whole state back may have done so by now
        self.seconds = time.perf_counter() - began
        batches = None if saved["batches"] is None else operator.index(saved["batches"])
        self._expected, self._ahead, self.fetched = saved["random"], None, batches or 0
        if self._expected is None:
            self.placing = nullcontext  # it would hold the snapshot for ever
        return batches

    # An epoch --------------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """An epoch begins."""
        self.fetched, self._ahead, self._expected, self.rolls = 0, None, None, False
        for source in self.sources:
            source.ends = 0

    def before_load(self, ahead: bool) -> None:
        """A batch is about to be loaded; ``ahead`` of another one that training has not used yet."""
        self.rolls = not ahead and self._pending is None
        if self._expected is not None:
            with self.placing():
                random_state.restore(self._expected)
            self._expected, self.placing = None, nullcontext
        if ahead:
            for source in self.sources:
                source.ahead = True
            self._ahead = self._here(random=True)


@functools.cache
def recording(combined_loader: type) -> type:
    """Make the recording subclass of the `CombinedLoader` of one of Lightning's two packages."""

    class RecordingLoader(combined_loader):  # type: ignore[misc]
        """A `CombinedLoader` whose loaders are sources, and which goes to a pending place at its first fetch."""

        def __init__(self, iterables: Any, mode: str, tape: Tape) -> None:
            super().__init__(iterables, mode)
            self.tape = tape

        def __iter__(self) -> Any:
            private.hold_back(self, self.tape.follow(self.flattened))
            self.tape.loader = self
            if not self.tape.pending:
                self._begin()
            return self

        def __next__(self) -> Any:
            tape = self.tape
            if tape.rolls:
                tape.before_fetch()
            else:
                self._before_another_fetch()
            batch = super().__next__()
            tape.fetched += 1
            return batch

        def _before_another_fetch(self) -> None:
            tape = self.tape
            if tape.pending:
                with tape.placing():
                    self.go_back()
            ahead = tape.prefetches()
            if tape.fetched or not ahead:  # else a resumed fit would make the first of two fetches too early
                tape.before_fetch()
            tape.before_load(ahead)

        def _begin(self) -> None:
            self.tape.begin()
            iter(self._iterator)

        def go_back(self) -> None:
            """Go to the place that the tape waits for."""
            batches = self.tape.go_back()
            if batches is None:
                self._begin()
            else:
                private.go_on_from(self, batches)

        def reset(self) -> None:
            super().reset()
            for source in self.tape.sources:
                source.stop()

        def _state_dicts(self) -> list[dict[str, Any]]:
            # Asked too early, a stateful loader would make its iterator for it, and draw random numbers.
            return [] if self.tape.pending else super()._state_dicts()

    return RecordingLoader
