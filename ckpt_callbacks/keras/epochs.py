"""The epoch iterator that remembers how its iterator began, and can begin it again.

What an iterator draws is fixed by the random state at a few instants: just before it is made, just before its first
fetch, and just before the fetch that training has not seen yet (and, on TensorFlow, by seeds in the dataset's graph,
which the same script makes again). An epoch makes a new iterator, unless ``steps_per_epoch`` lets one serve many. To
resume, the instants are re-lived from the recorded states, and the batches that were trained on are drawn and dropped.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ckpt_callbacks.errors import ResumeError
from ckpt_callbacks.keras import private
from ckpt_callbacks.state import random_state

__all__ = ["Tape"]


class Tape:
    """How the current iterator of a fit began, and how far it got.

    Args:
        epoch_iterator: of the running fit; it is made to tell this tape what it does.
        before_fetch: called before each fetch with the number of batches done in the epoch: the clean boundary.

    Attributes:
        replayed, seconds: what the last replay did.
    """

    def __init__(self, epoch_iterator: Any, before_fetch: Callable[[int], None]) -> None:
        self.replayed = 0
        self.seconds = 0.0
        self._before_fetch = before_fetch
        self._began: dict[str, Any] = {"before_iter": None, "before_first": None}
        self._fetched = 0
        self._pending: dict[str, Any] | None = None
        # Weakly: the iterator ends with its fit, however that ends, and by its end we know.
        self._epoch_iterator = weakref.ref(epoch_iterator)
        private.replace_iterators(epoch_iterator, self._make)
        private.replace_epochs(epoch_iterator, self._epoch)

    def not_replayed(self) -> dict[str, str]:
        """What drawing the data again can't be sure to bring back -> why."""
        epoch_iterator = self._epoch_iterator()
        kind = private.kind_of_data(epoch_iterator) if epoch_iterator is not None else "ArrayDataAdapter"
        if kind == "ArrayDataAdapter":
            return {}
        source = kind.removesuffix("Adapter").removesuffix("Data")
        return {f"data ({source})": "its place is reached by drawing again, which is not known to be exact for it"}

    def as_dict(self) -> dict[str, Any]:
        """The part that goes into a snapshot."""
        return {**self._began, "fetched": self._fetched}

    def pend(self, saved: Mapping[str, Any], batch: int) -> None:
        """Let the next epoch go on after ``batch`` batches, with the iterator of a saved tape."""
        self._pending = {**saved, "batch": batch}

    def _make(self, original: Callable[[], Any]) -> Any:
        """Note, or put back, the state in which an iterator is made."""
        if self._pending is not None and self._pending["before_iter"] is not None:
            random_state.restore(self._pending["before_iter"])
        self._began, self._fetched = {"before_iter": random_state.capture(), "before_first": None}, 0
        return original()

    def _epoch(self, original: Callable[[], Iterator[Any]]) -> Iterator[Any]:
        for first, last, iterator in original():
            count = last - first + 1
            if self._pending is not None and not self._catch_up(iterator, first, count):
                continue
            self._before_fetch(first)
            self._about_to_fetch()
            yield first, last, iterator
            self._fetched += count

    def _about_to_fetch(self) -> None:
        if self._fetched == 0:
            self._began["before_first"] = random_state.capture()

    def _catch_up(self, iterator: Iterator[Any], first: int, count: int) -> bool:
        """Drop what was trained on; True as soon as the batches from ``first`` on were not."""
        pending = self._pending
        assert pending is not None
        began = time.perf_counter()
        if first == 0:
            if pending["before_first"] is not None:
                random_state.restore(pending["before_first"])
            earlier = pending["fetched"] - pending["batch"]  # what earlier epochs took from the same iterator
            self._drop(iterator, earlier)
            private.count_steps(self._epoch_iterator(), earlier)
        done = bool(first >= pending["batch"])
        if done:
            self._pending = None
        else:
            self._drop(iterator, count)
        self.seconds += time.perf_counter() - began
        return done

    def _drop(self, iterator: Iterator[Any], batches: int) -> None:
        assert self._pending is not None
        for _ in range(batches):
            self._about_to_fetch()
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
