"""One `model.fit`, as all our callbacks in it share it: its tape, its events, and the snapshot put back.

The clean boundary is the instant before the next batch is fetched, or the end of fit: by then validation and every
other callback have had their say on the batch and the epoch before, and no random number was drawn for the next.
"""

from __future__ import annotations

import importlib.metadata
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import FrameType
from typing import Any

import keras

from ckpt_callbacks import together
from ckpt_callbacks.checkpointer import BaseCheckpointer
from ckpt_callbacks.engine import Event, Progress
from ckpt_callbacks.errors import CheckpointError
from ckpt_callbacks.keras import private, state
from ckpt_callbacks.keras.epochs import Tape
from ckpt_callbacks.keras.live import Live
from ckpt_callbacks.keras.steadiness import steady_tensors
from ckpt_callbacks.keras.validation import Validation
from ckpt_callbacks.keras.weights import load_weights
from ckpt_callbacks.leaving import Leaving
from ckpt_callbacks.messages import warn
from ckpt_callbacks.resume import Restored
from ckpt_callbacks.state.captured import Captured
from ckpt_callbacks.store import fingerprint

__all__ = ["Fit", "settle_all"]

INTERVAL = 0.5
"""Seconds between two looks whether fit still runs."""

_FITS: weakref.WeakSet[Fit] = weakref.WeakSet()
"""The fits of this process that did not end well, as far as is known."""


class Fit:
    """Leads one fit to the snapshot's place, and shows every boundary to each callback.

    Args:
        model: gives the model being fitted. It is asked whenever a state is needed, because Keras' `Callback.model`
            also brings the state back into the variables where a backend (JAX) keeps it elsewhere while it trains;
            and only then, because that costs time.
        running: what else of the fit can be reached.
        params: Keras' own description of the fit: ``epochs`` and, where known, ``steps``.
        callbacks: all of ours in the fit; the first one's hooks drive this object.
    """

    def __init__(
        self,
        model: Callable[[], Any],
        running: private.fits.Running,
        params: Mapping[str, Any],
        callbacks: Sequence[BaseCheckpointer],
    ) -> None:
        self._model, self.callbacks = model, callbacks
        self._params = params
        deterministic = all(callback.deterministic_data for callback in callbacks)
        self._validation = Validation(
            running.validation["x"], private.batches.data_behind(running.epoch_iterator), deterministic
        )
        self._tape = Tape(running.epoch_iterator, self._between_batches, deterministic, self._validation)
        others = [callback for callback in running.callbacks if callback not in callbacks]
        self._live = Live(model, others, [*self._tape.source.memory.variables, *self._validation.variables])
        self._progress, self._batches_before = Progress(), 0
        self._batches_a_step = getattr(model().optimizer, "gradient_accumulation_steps", None) or 1
        self._events = Event.NONE
        self._metrics: dict[str, Any] = {}
        self._unfence: Callable[[], None] | None = None  # set while something may be copied beside training
        self._others = others
        iterator, this = weakref.ref(running.epoch_iterator), weakref.ref(self)

        def saves(frame: FrameType | None) -> bool:
            return (fit := this()) is not None and fit.trains and private.fits.is_in_fit(frame, iterator())

        self._leaving = Leaving(callbacks, saves)
        # Keras tells callbacks nothing of an exception; but fit is gone then. Nobody else has its list of callbacks,
        # which goes with its local variables: at once, unless somebody keeps the traceback; hence the thread.
        self._abandoned = weakref.finalize(running.callback_list, _abandon, self._leaving, callbacks)
        is_present = self._is_present = private.fits.presence(running.epoch_iterator)
        _FITS.add(self)
        self._over = threading.Event()
        self._awaiting = threading.Thread(
            target=_await_end,
            args=(is_present, self._over, self._abandoned),
            name="fit-watch",
            daemon=True,
        )
        self._restored: tuple[BaseCheckpointer, Restored] | None = None
        self._unbuildable = private.models.unbuildable(model())

    # Resume --------------------------------------------------------------------------------------------------------

    def start(self, running: private.fits.Running) -> None:
        """Choose the snapshot to carry on from, try whether the state can be stored, and lead fit to its place."""
        self._awaiting.start()
        self._restored = together.begin(self.callbacks, _versions(), private.fits.devices())
        if self._restored is not None:
            with self._restored[1].placing():  # a step that is traced may change attributes
                undo = self._live.remember_attributes(self._restored[1].rest["live"])
            private.models.build(self._model(), running.epoch_iterator)
            undo()
        for callback in self.callbacks:
            callback.expect(callback.rehearse(self._capture("between epochs")))
            callback.watch(self._validation.validates)
        private.fits.hear_first(running, self.epoch_begins, self.end)
        self._leaving.install()
        if self._restored is not None:
            with self._restored[1].placing():
                self._go_to(self._restored[1], running)

    def _go_to(self, restored: Restored, running: private.fits.Running) -> None:
        if restored.rest["validation"]["made"]:
            private.fits.make_evaluated(self._model(), running)
            self._validation.begins(private.fits.evaluated(self._model()))
        progress = self._progress = restored.snapshot.progress
        if restored.where == "between batches":
            private.fits.begin_at_epoch(self._model(), progress.epoch)
            self._tape.pend(restored.rest["tape"], progress.batch, restored.placing)
        else:
            stopped = restored.is_over(restored.rest["stop_training"])
            self._tape.pend_epoch(restored.rest["tape"], restored.placing)
            private.fits.begin_at_epoch(self._model(), self._params["epochs"] if stopped else progress.epoch)

    def _put_back(self, *places: str, metrics: bool, complete: bool = False) -> bool:
        """Put the chosen snapshot back if it was captured at one of these places; tell whether it was."""
        if self._restored is None or self._restored[1].where not in places:
            return False
        (owner, restored), self._restored = self._restored, None
        with owner.loading(restored):
            if complete:
                self._tape.complete(restored.rest["tape"])
                self._validation.complete(restored.rest["validation"])
            else:
                self._validation.put_back(restored.rest["validation"])
            state.put_back(self._model(), self._live, restored, metrics=metrics, left=self._tape.left)
        together.resumed_at(
            self.callbacks,
            owner,
            restored,
            complete=complete,
            skipped=self._tape.skipped,
            replayed=self._tape.replayed,
            seconds=self._tape.seconds,
        )
        return True

    @property
    def trains(self) -> bool:
        """Whether there is something to save: no snapshot waits to be put back."""
        return self._restored is None

    # Boundaries ----------------------------------------------------------------------------------------------------

    def epoch_begins(self, epoch: int, logs: Any = None) -> None:
        """An epoch begins; a snapshot from the end of an earlier fit is put back here, for the epoch's own hooks."""
        private.fits.begin_at_epoch(self._model(), None)
        self._batches_before = self._progress.batches - self._progress.batch
        self._progress = self._progress_at(epoch, self._progress.batch)
        self._put_back("between epochs", metrics=False)

    def after_step(self, batch: int, logs: Mapping[str, Any]) -> None:
        """Batches up to number ``batch`` of the epoch were trained on: the epoch's metrics go to the trace.

        Keras may call this from a thread of its own, but never beyond the end of the epoch.
        """
        values = [value for value in logs.values() if isinstance(value, float)]
        if values:
            done = self._progress_at(self._progress.epoch, batch + 1)
            loss, bits = logs.get("loss", values[0]), fingerprint(*values)
            for callback in self.callbacks:
                callback.stepped(done.batches, done.step, loss, bits)

    def validation_begins(self) -> None:
        """The validation data are about to be iterated."""
        self._validation.begins(private.fits.evaluated(self._model()))
        self._live.about_to_run("test_function")

    def epoch_ends(self, epoch: int, logs: Mapping[str, Any]) -> None:
        """Metrics were measured; the boundary comes with the next epoch's first fetch."""
        self._live.epoch_ends()
        self._metrics = dict(logs)
        self._events |= Event.EPOCH_END
        if any(name.startswith("val_") for name in logs):
            self._events |= Event.VALIDATION_END
        done = self._progress.batch + self._model().steps_per_execution
        done = self._progress_at(epoch, min(done, self._params.get("steps") or done))
        self._progress = Progress(done.step, epoch + 1, 0, done.batches)

    def end(self, logs: Any = None) -> None:
        """The last boundary, before any callback is told that training has ended: they may change the weights.

        A run that was already complete never came to another: its state is put back here.
        """
        try:
            if not self._put_back("between batches", "between epochs", metrics=True, complete=True):
                self._events |= Event.FIT_END
                self._observe("between epochs")
        except BaseException:
            _abandon(self._leaving, self.callbacks)
            raise

    def restore_best(self) -> None:
        """Training has ended, and the callbacks before ours had their say."""
        for callback in self.callbacks:
            callback.put_best_back(lambda path: load_weights(self._model(), path))

    def release(self) -> None:
        """Leave the model as it was."""
        self._fence()
        _FITS.discard(self)
        self._abandoned.detach()
        self._over.set()
        private.fits.begin_at_epoch(self._model(), None)

    def settle(self) -> None:
        """If this fit was left by an exception: let go of what it held, now."""
        if not self._is_present():
            self.abandon()

    def abandon(self) -> None:
        """Another fit begins with the same callback, so this one is over: it was left by an exception."""
        _FITS.discard(self)
        self._over.set()
        if self._awaiting.is_alive():
            self._awaiting.join()
        self._abandoned()

    def close(self) -> None:
        """Fit has ended well, and all is durable: a signal that came meanwhile is answered."""
        self._leaving.close()

    def deafen(self) -> None:
        """Fit ends with an exception: signals go where they went before."""
        self._leaving.remove()

    def _between_batches(self, batch: int) -> None:
        """The boundary: ``batch`` batches of this epoch are done."""
        self._progress = self._progress_at(self._progress.epoch, batch)
        self._fence()
        put_back = self._put_back("between batches", metrics=True)
        self._live.about_to_run("train_function")
        if put_back:
            return
        quiet = not self._events and self._leaving.look() is None
        if quiet and together.rest(self.callbacks, self._progress.step, self._progress.batches):
            return
        self._observe("between batches")

    def _observe(self, where: str) -> None:
        events, self._events = self._events, Event.NONE
        metrics, self._metrics = self._metrics, {}
        signal = self._leaving.look()
        for callback in self.callbacks:
            callback.boundary(self._progress, events, metrics, lambda: self._capture(where), signal)
        self._leaving.after_boundary()

    def _fence(self) -> None:
        """An optimizer is about to change variables, or the batch is done: what is still copied must be of before."""
        unfence, self._unfence = self._unfence, None
        if unfence is not None:
            for callback in self.callbacks:
                callback.fence()
            unfence()

    def _steady(self) -> Mapping[int, Any]:
        """What may be copied beside the next batch; asked for at a boundary after which there is one."""
        model = self._model()
        steady = steady_tensors(model, self._others)
        if steady and self._unfence is None:
            fence = weakref.WeakMethod(self._fence)  # a fit that raises must not live on in its optimizers
            self._unfence = private.models.before_applying(private.models.optimizers_of(model), lambda: _call(fence()))
        return steady

    def _progress_at(self, epoch: int, batch: int) -> Progress:
        batches = self._batches_before + batch
        return Progress(batches // self._batches_a_step, epoch, batch, batches)

    def _capture(self, where: str) -> Captured:
        data = {"tape": self._tape.as_dict(), "validation": self._validation.capture()}
        captured = state.capture(self._model(), self._live, where, data)
        lost = {**self._tape.missing(), **self._validation.missing(), **self._unbuildable}
        steady = self._steady if where == "between batches" else dict
        return replace(captured, missing={**captured.missing, **lost}, data=self._tape.how, steady=steady)


def settle_all() -> None:
    """Before a fit begins: what earlier ones held is saved, and theirs is the past that it finds."""
    for fit in list(_FITS):
        fit.settle()


def _await_end(is_present: Callable[[], bool], over: threading.Event, abandon: Callable[[], Any]) -> None:
    """On a thread of its own, until fit is ``over``: if it was left by an exception, let go of what it held."""
    while not over.wait(INTERVAL):
        # Twice: the first look may have come amid a call that returned.
        if not is_present() and not over.wait(INTERVAL) and not is_present():
            abandon()
            return


def _abandon(leaving: Leaving, callbacks: Sequence[BaseCheckpointer]) -> None:
    """A fit ended with an exception: let go of what it held."""
    # A thread of ours collects garbage: it can't wait for itself.
    if threading.current_thread().name.startswith("ckpt-"):
        threading.Thread(target=_abandon, args=(leaving, callbacks), name="abandon").start()
        return
    leaving.remove()
    for callback in callbacks:
        try:
            if not leaving.insisted:
                callback.failed()
            callback.end()
        except CheckpointError as error:
            warn(f"a snapshot could not be written: {error}")
    leaving.repeat()


def _call(method: Callable[[], None] | None) -> None:
    if method is not None:
        method()


def _versions() -> dict[str, str]:
    """Keras, and the package of its backend, which may be called after it or after it and ``-cpu``."""
    backend = keras.backend.backend()
    versions = {"keras": keras.__version__}
    for distribution in (backend, f"{backend}-cpu"):
        try:
            versions[backend] = importlib.metadata.version(distribution)
            break
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
