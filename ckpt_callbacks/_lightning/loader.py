"""The train loader that remembers how its epoch began, and can begin it again.

What an epoch draws is fixed by the random state at a few instants: just before its iterator is made (the workers' base
seed, and their first indices), just before its first fetch (the sampler's seed, without workers), and just before the
fetches that training has not used yet (a dataset that draws in this process). `Tape` holds these. To resume, the same
instants are re-lived from the recorded states: the batches that were trained on are drawn again and dropped, and the
next one comes out as it would have.

The iterator of a resumed epoch is made at the first fetch, not when Lightning sets fit up: by then samplers know the
epoch, and nothing that runs in between can disturb the order.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from typing import Any

from ckpt_callbacks._lightning import private
from ckpt_callbacks.errors import ResumeError
from ckpt_callbacks.state import random_state

__all__ = ["Tape", "recording"]


class Tape:
    """How the current epoch of the train loader began, and how far it got.

    Args:
        prefetches: whether Lightning fetches one batch ahead now (it does if the loader has no length).
        before_fetch: called before each fetch of a running fit: the clean boundary.

    Attributes:
        fetched: batches fetched in this epoch.
        replayed, seconds: what the last replay did.
    """

    def __init__(self, prefetches: Callable[[], bool], before_fetch: Callable[[], None]) -> None:
        self.prefetches, self.before_fetch = prefetches, before_fetch
        self.fetched = self.replayed = 0
        self.seconds = 0.0
        self._before_iter: Any = None
        self._generators: Any = None
        self._before: dict[int, Any] = {}  # number of a fetch -> random state just before it
        self._pending: dict[str, Any] | None = None
        self._expected: dict[int, Any] = {}

    def as_dict(self, used: int) -> dict[str, Any]:
        """The part that goes into a snapshot, when training has used ``used`` batches of those fetched."""
        return {
            "before_iter": self._before_iter,
            "generators": self._generators,
            "before": {**self._before, self.fetched: random_state.capture()},
            "skip": used,
        }

    def epoch_over(self) -> None:
        """Forget the epoch: the next one has not begun."""
        self._before_iter = self._generators = None
        self._before, self.fetched = {}, 0

    def pend(self, saved: Mapping[str, Any]) -> None:
        """Let the next fetch re-live a saved tape first."""
        self._pending = dict(saved)

    @property
    def pending(self) -> bool:
        """Whether an epoch waits to be re-lived."""
        return self._pending is not None

    def begin(self, loaders: Any) -> None:
        """Note the state in which an epoch's iterator is about to be made."""
        self.epoch_over()
        self._before_iter = random_state.capture()
        self._generators = random_state.capture_generators(loaders)

    def about_to_fetch(self) -> None:
        """Put back the state that this fetch saw, if it is one of a re-lived epoch; note it if it will be needed."""
        expected = self._expected.pop(self.fetched, None)
        if expected is not None:
            random_state.restore(expected)
        if self.fetched == 0 or self.prefetches():
            first = {} if self.fetched == 0 else {0: self._before[0]}
            self._before = {**first, self.fetched: random_state.capture()}

    def relive(self, loaders: Any, start: Callable[[], None], fetch: Callable[[], Any]) -> None:
        """Begin the recorded epoch again and draw the batches that were trained on."""
        saved, self._pending = self._pending, None
        assert saved is not None
        began = time.perf_counter()
        if saved["before_iter"] is not None:
            random_state.restore(saved["before_iter"])
            random_state.restore_generators(loaders, saved["generators"])
            self._expected = dict(saved["before"])
        start()
        for done in range(saved["skip"]):
            try:
                fetch()
            except StopIteration:
                raise ResumeError(
                    f"the train loader ended after {done} batches, but the snapshot was taken {saved['skip']} batches "
                    "into its epoch. The data got shorter or the batches larger since then: restore the data, or "
                    "start afresh in another directory."
                ) from None
        self.replayed, self.seconds = saved["skip"], time.perf_counter() - began


@functools.cache
def recording(combined_loader: type) -> type:
    """Make the recording subclass of the `CombinedLoader` of one of Lightning's two packages."""

    class RecordingLoader(combined_loader):  # type: ignore[misc]
        """A `CombinedLoader` that writes to a `Tape` and re-lives a pending one."""

        def __init__(self, iterables: Any, mode: str, tape: Tape) -> None:
            super().__init__(iterables, mode)
            self.tape = tape

        def __iter__(self) -> Any:
            if self.tape.pending:
                private.hold_back(self)
            else:
                self._start()
            return self

        def __next__(self) -> Any:
            if self.tape.pending:
                self.tape.relive(self.flattened, self._start, self._fetch)
            self.tape.before_fetch()
            return self._fetch()

        def _start(self) -> None:
            self.tape.begin(self.flattened)
            super().__iter__()

        def _fetch(self) -> Any:
            self.tape.about_to_fetch()
            batch = super().__next__()
            self.tape.fetched += 1
            return batch

    return RecordingLoader
