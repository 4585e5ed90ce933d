"""The epoch iterator that remembers how its iterator began, and can begin it again.

What an iterator draws is fixed by the random state at a few instants: just before it is made, just before its first
fetch, and just before the fetch that training has not seen yet (and, on TensorFlow, by seeds in the dataset's graph,
which the same script makes again). An epoch makes a new iterator, unless ``steps_per_epoch`` lets one serve many. To
resume, the instants are re-lived from the recorded states, and the batches that were trained on are drawn and dropped.
"""

from __future__ import annotations

import copy
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from typing import Any

from ckpt_callbacks.errors import ResumeError
from ckpt_callbacks.keras import private
from ckpt_callbacks.keras.sources import Source, moved, without
from ckpt_callbacks.keras.validation import Validation
from ckpt_callbacks.messages import steps
from ckpt_callbacks.resume import Placing
from ckpt_callbacks.state import random_state

__all__ = ["Tape"]


class Tape:
    """How the current iterator of a fit began, and how far it got.

    Args:
        epoch_iterator: of the running fit; it is made to tell this tape what it does.
        before_fetch: called before each fetch with the number of batches done in the epoch: the clean boundary.
        deterministic: whether the user says that the data are the same whenever they are made again.
        validation: of the same fit; its data may be shuffled together with these.

    Attributes:
        source: what is known of the data.
        skipped, replayed, seconds: what the last way back did: batches passed over, or loaded again and dropped.
        left: the parts of the random state that the data's own thread moves on, and nobody else may set.
    """

    def __init__(
        self,
        epoch_iterator: Any,
        before_fetch: Callable[[int], None],
        deterministic: bool = False,
        validation: Validation | None = None,
    ) -> None:
        self._validation = validation or Validation(None)
        self.source = Source(epoch_iterator, deterministic)
        self.skipped = self.replayed = 0
        self.seconds = 0.0
        self.left: tuple[str, ...] = ()
        self._before_fetch = before_fetch
        self._before_epoch: Any = None
        self._began: dict[str, Any] = {}
        self._note(begun=0)
        self._fetched = 0
        self._pending: dict[str, Any] | None = None
        self._placing: Placing = nullcontext
        # Weakly: the iterator ends with its fit, however that ends, and by its end we know.
        self._epoch_iterator = weakref.ref(epoch_iterator)
        private.batches.replace_iterators(epoch_iterator, self._make)
        private.batches.replace_epochs(epoch_iterator, self._epoch)

    @property
    def how(self) -> str:
        """How a resume will reach the place in the data, in a few words."""
        return self.source.how

    def missing(self) -> dict[str, str]:
        """What the way back can't be sure to bring back -> why."""
        before = self._began["before_first"]
        drawn = () if before is None else moved(before, random_state.capture())
        return self.source.missing(drawn=any(name != "torch" for name in drawn))  # a model draws from torch's as well

    def as_dict(self) -> dict[str, Any]:
        """The part that goes into a snapshot."""
        epoch_iterator = self._epoch_iterator()
        return {
            **self._began,
            "fetched": self._fetched,
            "iterations": self.source.iterations.begun,
            "length": private.batches.length(epoch_iterator) if epoch_iterator is not None else None,
            "memory": self.source.memory.capture(),
            "load": self.source.must_load(self._began["began_with"]),
            "lives_on": epoch_iterator is not None and private.batches.lives_on(epoch_iterator),
        }

    def pend(self, saved: Mapping[str, Any], batch: int, placing: Placing = nullcontext) -> None:
        """Let the next epoch go on after ``batch`` batches, with the iterator of a saved tape.

        Args:
            saved: of the tape.
            batch: how many batches.
            placing: lets an error on the way say of which snapshot it is.
        """
        self._pending, self._placing = {**saved, "batch": batch, "within": True}, placing

    def pend_epoch(self, saved: Mapping[str, Any], placing: Placing = nullcontext) -> None:
        """Let the next epoch begin as it would have after the epoch at whose end ``saved`` was taken. As `pend`.

        With ``steps_per_epoch`` it goes on with the iterator of the epoch before, unless that was used up.
        """
        serves_many = private.batches.serves_many_epochs(self._epoch_iterator())
        within = saved["lives_on"] and serves_many
        self._pending, self._placing = {**saved, "batch": 0, "within": within}, placing

    def complete(self, saved: Mapping[str, Any]) -> None:
        """Leave the data as a fit left them whose end ``saved`` was taken at: another fit may use them next."""
        self.source.iterations.make_up(saved["iterations"])
        self.source.memory.put_back(saved["memory"])
        self._reached()

    def _note(self, begun: int) -> None:
        """An iterator is about to be made."""
        self._began = {
            "before_epoch": self._before_epoch,
            "before_iter": random_state.capture(),
            "before_first": None,
            "iterations_before": begun,
            "validations_before": self._validation.begun,
            "began_with": copy.deepcopy(self.source.memory.capture()),  # a data set may shuffle its list in place
        }

    def _make(self, original: Callable[[], Any]) -> Any:
        """Note, or put back, the state in which an iterator is made."""
        pending = self._pending
        if pending is not None and pending["within"]:
            with self._placing():
                self._validation.make_up(pending["validations_before"])
                self.source.iterations.make_up(pending["iterations_before"])
                self.source.memory.put_back(pending["began_with"])
                self._restore(pending["before_iter"])
        self._note(self.source.iterations.begun)
        self._fetched = 0
        if private.batches.iterates_at_once(self._epoch_iterator()):
            self.source.iterations.begun += 1
        return original()

    def _epoch(self, original: Callable[[], Iterator[Any]]) -> Iterator[Any]:
        if self._pending is not None:
            with self._placing():
                self._begin_epoch(self._pending)
        self._before_epoch = random_state.capture()
        for first, last, iterator in original():
            count = last - first + 1
            if self._pending is not None:
                with self._placing():
                    there = self._catch_up(iterator, first, count)
                if not there:
                    continue
            self._before_fetch(first)
            self._about_to_fetch()
            yield first, last, iterator
            self._fetched += count

    def _begin_epoch(self, pending: dict[str, Any]) -> None:
        """Put back what the epoch's own beginning looks at."""
        pending["here"] = random_state.capture()
        if pending["length"] is not None:
            private.batches.put_back_length(self._epoch_iterator(), pending["length"])
        if pending["within"]:
            if self.source.has_workers:  # they begin to load when the epoch does
                self.source.memory.put_back(pending["began_with"])
                random_state.restore(pending["before_epoch"])
        else:
            self.source.iterations.make_up(pending["iterations"])
            self.source.memory.put_back(pending["memory"])
            self._reached()

    def _restore(self, state: Mapping[str, Any]) -> None:
        """Put the random state of an instant back, unless threads that load are drawing by now."""
        if not self.source.has_workers:
            random_state.restore(state)

    def _about_to_fetch(self) -> None:
        if self._fetched == 0:
            self._began["before_first"] = random_state.capture()
            if not private.batches.iterates_at_once(self._epoch_iterator()):
                self.source.iterations.begun += 1

    def _catch_up(self, iterator: Iterator[Any], first: int, count: int) -> bool:
        """Drop what was trained on; True as soon as the batches from ``first`` on were not."""
        pending = self._pending
        assert pending is not None
        began = time.perf_counter()
        if first == 0:
            self._go_back(pending)
            earlier = pending["fetched"] - pending["batch"]  # what earlier epochs took from the same iterator
            self._drop(iterator, earlier)
            private.batches.count_steps(self._epoch_iterator(), earlier)
        done = bool(first >= pending["batch"])
        if done:
            self._arrive(pending)
        else:
            self._drop(iterator, count)
        self.seconds += time.perf_counter() - began
        return done

    def _go_back(self, pending: Mapping[str, Any]) -> None:
        if pending["before_first"] is not None:
            self._restore(pending["before_first"])
        if not pending["load"]:
            self.source.pass_over(pending["fetched"])
        self._progress = steps(pending["fetched"], f"{'passing over' if not pending['load'] else 'replaying'} batches")

    def _arrive(self, pending: Mapping[str, Any]) -> None:
        """The place is reached. What the data's own thread has drawn by now is not ours to set."""
        next(self._progress, None)
        if pending["load"]:
            self.replayed = self._fetched
            if self.source.runs_ahead and self._fetched:
                self.left = moved(pending["before_first"] or {}, random_state.capture())
        else:
            self.skipped = self._fetched
        random_state.restore(without(pending["here"], self.left))
        self._reached()

    def _reached(self) -> None:
        self._pending, self._placing = None, nullcontext  # both hold what the snapshot held

    def _drop(self, iterator: Iterator[Any], batches: int) -> None:
        assert self._pending is not None
        for _ in range(batches):
            next(self._progress, None)
            self._about_to_fetch()
            try:
                self.source.drop(iterator, self._pending["load"])
            except StopIteration:
                raise ResumeError(
                    f"the data ended after {self._fetched} batches, but the snapshot was taken "
                    f"{self._pending['fetched']} batches after its beginning. The data got shorter or the batches "
                    "larger since then: restore the data, or start afresh in another directory."
                ) from None
            self._fetched += 1
