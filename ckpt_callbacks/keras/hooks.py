"""Keras' hooks -> Moments. Nothing is decided here.

The clean boundary is the instant before the next batch is fetched, or the end of fit: by then validation and every
other callback have had their say on the batch and the epoch before, and no random number was drawn for the next.
"""

from __future__ import annotations

import importlib.metadata
import weakref
from collections.abc import Mapping
from typing import Any

import keras

from ckpt_callbacks.checkpointer import BaseCheckpointer, Restored
from ckpt_callbacks.engine import Event, Progress
from ckpt_callbacks.keras import private, state
from ckpt_callbacks.keras.companions import Companions
from ckpt_callbacks.keras.epochs import Tape
from ckpt_callbacks.signals import LeaveRequest, exit_code

__all__ = ["Checkpointer"]

_PACKAGES = {"tensorflow": "tensorflow", "torch": "torch", "jax": "jax"}


class Checkpointer(BaseCheckpointer, keras.callbacks.Callback):
    """Saves, keeps and restores snapshots of a `model.fit`.

    Takes the arguments of `ckpt_callbacks.checkpointer.BaseCheckpointer`.
    """

    framework = "keras"
    reads = ("keras",)

    _restored: Restored | None = None

    # Fit begins ----------------------------------------------------------------------------------------------------

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Choose the snapshot to carry on from, and let fit begin at its epoch."""
        fit = private.current_fit()
        self._companions = Companions([callback for callback in fit.callbacks if callback is not self])
        self._tape = Tape(fit.epoch_iterator, self._between_batches)
        self._progress, self._events = Progress(), Event.NONE
        self._logs: dict[str, Any] = {}
        self._restored = self.begin(_versions())
        self._listen(fit.epoch_iterator)
        if self._restored is not None:
            private.build(self.model, fit.epoch_iterator)
            self._go_to(self._restored)
        self.rehearse(self._capture("between epochs"))

    def _go_to(self, restored: Restored) -> None:
        """Lead fit to the place where the snapshot was captured."""
        progress = self._progress = restored.snapshot.progress
        if restored.rest["where"] == "between batches":
            private.begin_at_epoch(self.model, progress.epoch)
            self._tape.pend(restored.rest["tape"], progress.batch)
        else:
            stopped = restored.rest["stop_training"]
            private.begin_at_epoch(self.model, self.params["epochs"] if stopped else progress.epoch)

    def _listen(self, epoch_iterator: Any) -> None:
        alive = weakref.ref(epoch_iterator)
        self._leave = LeaveRequest(still_running=lambda: alive() is not None)
        self._leave.install()

    # Boundaries and what happens between them ----------------------------------------------------------------------

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """An epoch begins; a snapshot from the end of an earlier fit is put back here."""
        private.begin_at_epoch(self.model, None)
        self._epoch, self._batches_before = epoch, self._progress.batches - self._progress.batch
        self._put_back("between epochs", metrics=False)

    def _between_batches(self, batch: int) -> None:
        """The boundary: ``batch`` batches of this epoch are done."""
        self._progress = self._progress_at(self._epoch, batch)
        if self._put_back("between batches", metrics=True):
            return
        if self._leave.signal is not None:
            self._events |= Event.SIGNAL
        self._observe("between batches")
        if self._leave.signal is not None:
            self._finish()
            raise SystemExit(exit_code(self._leave.signal))

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Metrics were measured; the boundary comes with the next epoch's first batch."""
        self._logs = dict(logs or {})
        self._events |= Event.EPOCH_END
        if any(name.startswith("val_") for name in self._logs):
            self._events |= Event.VALIDATION_END
        done = self._progress.batch + self.model.steps_per_execution
        done = min(done, self.params.get("steps") or done)
        self._progress = self._progress_at(epoch, done)
        self._progress = Progress(self._progress.step, epoch + 1, 0, self._progress.batches)

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """The last boundary. A run that was already complete never came to another: its state is put back here."""
        try:
            if not self._put_back("between batches", "between epochs", metrics=True, complete=True):
                self._events |= Event.FIT_END
                self._observe("between epochs")
        finally:
            self._finish()

    # Helpers -------------------------------------------------------------------------------------------------------

    def _progress_at(self, epoch: int, batch: int) -> Progress:
        batches = self._batches_before + batch
        every = getattr(self.model.optimizer, "gradient_accumulation_steps", None) or 1
        return Progress(batches // every, epoch, batch, batches)

    def _observe(self, where: str) -> None:
        events, self._events = self._events, Event.NONE
        metrics, self._logs = self._logs, {}
        self.boundary(self._progress, events, metrics, lambda: self._capture(where))

    def _capture(self, where: str) -> Any:
        return state.capture(self.model, self._companions, where, self._tape.as_dict())

    def _put_back(self, *places: str, metrics: bool, complete: bool = False) -> bool:
        """Put the chosen snapshot back if it was captured at this place; tell whether it was."""
        restored = self._restored
        if restored is None or restored.rest["where"] not in places:
            return False
        self._restored = None
        state.put_back(self.model, self._companions, restored, metrics=metrics)
        self.resumed_at(restored, complete=complete, replayed=self._tape.replayed, seconds=self._tape.seconds)
        return True

    def _finish(self) -> None:
        self._leave.remove()
        self.end()


def _versions() -> dict[str, str]:
    backend = keras.backend.backend()
    versions = {"keras": keras.__version__}
    for distribution in (_PACKAGES.get(backend, backend), f"{backend}-cpu"):
        try:
            versions[backend] = importlib.metadata.version(distribution)
            break
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
