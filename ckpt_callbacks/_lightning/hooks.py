"""Lightning's hooks, handed on to the `Fit` that all our callbacks in a trainer share. Nothing is decided here."""

from __future__ import annotations

import functools
import signal
from collections.abc import Sequence
from typing import Any

from ckpt_callbacks._lightning import private, snapshot_io, state
from ckpt_callbacks._lightning.fit import Fit
from ckpt_callbacks.checkpointer import BaseCheckpointer
from ckpt_callbacks.engine import Event
from ckpt_callbacks.errors import CheckpointError, ConfigurationError
from ckpt_callbacks.messages import warn
from ckpt_callbacks.signals import exit_code

__all__ = ["LightningHooks"]


class LightningHooks(BaseCheckpointer):
    """The callback's hooks; `ckpt_callbacks.pytorch_lightning` and `.lightning` join it with their `Checkpoint`."""

    reads = ("pytorch_lightning", "lightning")
    determinism = "Trainer(deterministic=True)"
    #: The root of the framework's modules, set by the public subclass.
    package = ""

    _fit: Fit | None = None
    _led: Fit | None = None  # the same, if this callback is the first of ours in the trainer: its hooks drive the fit

    @functools.cached_property  # Lightning asks several times a step
    def state_key(self) -> str:
        """Lightning's name for this callback's state: two of them in one trainer differ by directory."""
        return f"{type(self).__qualname__}({self.directory})"

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Teach the trainer to read snapshots; for fit, to resume and to remember how its epochs began."""
        self._check(trainer)
        if stage != "fit" or trainer.fast_dev_run:
            self._fit = self._led = None
            snapshot_io.install(
                trainer, self.package, lambda path: state.for_evaluation(self.read(path), trainer.lightning_module)
            )
            return
        ours = [callback for callback in trainer.callbacks if isinstance(callback, LightningHooks)]
        self._led = Fit(trainer, self.package, ours) if ours[0] is self else None
        self._fit = self._led or ours[0]._fit
        if self._led is not None:
            snapshot_io.install(trainer, self.package, self._led.load)
            private.intercept_failure(trainer, functools.partial(_leave, self._led, ours))

    def _check(self, trainer: Any) -> None:
        found = private.package_of(trainer)
        if found != self.package:
            module = "ckpt_callbacks.lightning" if found.startswith("lightning") else "ckpt_callbacks.pytorch_lightning"
            raise ConfigurationError(
                f"the Trainer comes from {found}, but this Checkpointer is for {self.package}. Import it from {module}."
            )
        if trainer.world_size > 1:
            raise ConfigurationError(
                f"this trainer runs {trainer.world_size} processes, which Checkpointer can't save together yet. "
                "Train on one device, or use Lightning's own ModelCheckpoint for this job."
            )

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """The optimizers are there, and about to be loaded."""
        if fit := self._led:
            fit.prepare()

    def on_sanity_check_start(self, trainer: Any, pl_module: Any) -> None:
        """The first thing that may change the user's objects."""
        if fit := self._led:
            fit.listen()
            assert fit.live

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Training is about to start."""
        if fit := self._led:
            fit.start()

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """A batch is about to be trained on (the fit itself notices when one is about to be fetched)."""
        if (fit := self._led) and fit.fetches_itself:
            fit.before_step()

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Weights are about to change."""
        if fit := self._led:
            fit.fence()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """A batch was trained on."""
        if fit := self._led:
            fit.after_step(outputs)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Metrics were measured on the weights of the coming boundary."""
        if (fit := self._led) and not trainer.sanity_checking:
            fit.note(Event.VALIDATION_END)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """An epoch is over; the boundary comes with the next one's first fetch."""
        if fit := self._led:
            fit.note(Event.EPOCH_END)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Training is over, and the last boundary was before the first callback was told so."""
        if fit := self._led:
            fit.restore_best()

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """A run that was already complete never started to train: its last state is put back here."""
        if fit := self._led:
            fit.complete()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Save if the interruption left a clean state; never stand before the user's own error."""
        if trainer.received_sigterm and isinstance(exception, SystemExit):
            # Lightning leaves with 0, which tells a scheduler that the job is done.
            exception.code = exit_code(signal.SIGTERM)
        self.leave(exception)

    def leave(self, exception: BaseException) -> None:
        """An exception ends the fit. Safe to call more than once."""
        try:
            if fit := self._led:
                fit.interrupted(exception)
        except Exception as error:  # noqa: BLE001 - what ended training is what the user must see
            warn(f"no last snapshot: {error!r}")
        try:
            led = self._finish()
        except CheckpointError as error:
            warn(f"a snapshot could not be written: {error}")
        else:
            if led is not None:
                led.deafen()

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Make everything durable before `fit` returns."""
        if (led := self._finish()) is not None:
            led.close()

    def _finish(self) -> Fit | None:
        """The fit that this callback led, if there was one and it is not finished yet."""
        fit, led, self._fit, self._led = self._fit, self._led, None, None
        if fit is None:
            return None
        fit.release()
        try:
            self.end()
        except BaseException:
            if led is not None:
                led.deafen()
            raise
        return led


def _leave(fit: Fit, callbacks: Sequence[LightningHooks], exception: BaseException) -> None:
    for callback in callbacks:
        callback.leave(exception)
    fit.failed(exception)
