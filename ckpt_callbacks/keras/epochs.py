"""The epoch iterator that remembers how its iterator began, and can begin it again.

The order of the data is fixed by the random state just before its iterator is made (and, on TensorFlow, by seeds in
the dataset's graph, which the same script makes again). An epoch makes a new one, unless ``steps_per_epoch`` lets one
iterator serve many. To resume, the recorded state is put back, the iterator is made, and the batches that were trained
on are drawn and dropped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from ckpt_callbacks.errors import ResumeError
from ckpt_callbacks.keras import private
from ckpt_callbacks.state import random_state

__all__ = ["Tape"]


class Tape:
    """How the current iterator of a fit began, and how far it got.

    Attributes:
        replayed, seconds: what the last replay did.
    """

    def __init__(self, epoch_iterator: Any) -> None:
        self.replayed = 0
        self.seconds = 0.0
        self._before_iter: Any = None
        self._fetched = 0
        self._pending: dict[str, Any] | None = None
        self._epoch_iterator = epoch_iterator
        private.replace_iterators(epoch_iterator, self._make)
        private.replace_epochs(epoch_iterator, self._epoch)

    def as_dict(self) -> dict[str, Any]:
        """The part that goes into a snapshot: the batches fetched are those before the one that is about to be."""
        return {"before_iter": self._before_iter, "fetched": self._fetched}

    def pend(self, saved: dict[str, Any], batch: int) -> None:
        """Let the next epoch go on after ``batch`` batches, with the iterator of a saved tape."""
        self._pending = {**saved, "batch": batch}

    def _make(self, original: Callable[[], Any]) -> Any:
        if self._pending is not None and self._pending["before_iter"] is not None:
            random_state.restore(self._pending["before_iter"])
        self._before_iter, self._fetched = random_state.capture(), 0
        return original()

    def _epoch(self, original: Callable[[], Iterator[Any]]) -> Iterator[Any]:
        for first, last, iterator in original():
            count = last - first + 1
            if self._pending is not None:
                if self._catch_up(iterator, first, count):
                    self._pending = None
                else:
                    continue
            yield first, last, iterator
            self._fetched += count

    def _catch_up(self, iterator: Iterator[Any], first: int, count: int) -> bool:
        """Drop what was trained on; True as soon as the batches from ``first`` on were not."""
        assert self._pending is not None
        began = time.perf_counter()
        if first == 0:  # what earlier epochs took from the same iterator
            earlier = self._pending["fetched"] - self._pending["batch"]
            self._drop(iterator, earlier)
            private.count_steps(self._epoch_iterator, earlier)
        if first >= self._pending["batch"]:
            return True
        self._drop(iterator, count)
        self.seconds += time.perf_counter() - began
        return False

    def _drop(self, iterator: Iterator[Any], batches: int) -> None:
        assert self._pending is not None
        for _ in range(batches):
            try:
                next(iterator)
            except StopIteration:
                raise ResumeError(
                    f"the data ended after {self._fetched} batches, but the snapshot was taken "
                    f"{self._pending['fetched']} batches after its beginning. The data got shorter or the batches "
                    "larger since then: restore the data, or start afresh in another directory."
                ) from None
            self._fetched += 1
            self.replayed += 1
