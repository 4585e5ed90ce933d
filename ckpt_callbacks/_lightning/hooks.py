"""Lightning's hooks -> Moments. Nothing is decided here.

The clean boundary is the instant before the next batch is fetched, or the end of fit: by then the module's own hooks,
validation and every scheduler have had their say on the batch before, and no random number was drawn for the next. What
happened since the last boundary (a validation, an epoch's end) is collected in between.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import signal
from pathlib import Path
from typing import Any

from ckpt_callbacks._lightning import private, snapshot_io, state
from ckpt_callbacks._lightning.loader import Tape, recording
from ckpt_callbacks.checkpointer import BaseCheckpointer, Restored
from ckpt_callbacks.engine import Event
from ckpt_callbacks.errors import CheckpointError, ConfigurationError
from ckpt_callbacks.messages import warn
from ckpt_callbacks.signals import exit_code

__all__ = ["LightningHooks"]

# The tape of a snapshot from between two epochs: the next one begins at its first fetch, as it comes.
_NO_EPOCH = {"before_iter": None, "skip": 0}


class LightningHooks(BaseCheckpointer):
    """The callback's hooks; `ckpt_callbacks.pytorch_lightning` and `.lightning` join it with their `Checkpoint`."""

    reads = ("pytorch_lightning", "lightning")
    #: The root of the framework's modules, set by the public subclass.
    package = ""

    _fitting = _training = False
    _events = Event.NONE
    _restored: Restored | None = None

    @property
    def state_key(self) -> str:
        """Lightning's name for this callback's state: two of them in one trainer differ by directory."""
        return f"{type(self).__qualname__}({self.directory})"

    # Fit begins ----------------------------------------------------------------------------------------------------

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Teach the trainer to read snapshots; for fit, to resume and to remember how its epochs began."""
        self._check_package(trainer)
        snapshot_io.install(trainer, self.package, self._load)
        self._fitting = stage == "fit" and not trainer.fast_dev_run
        if not self._fitting:
            return
        self._events, self._restored, self._metrics = Event.NONE, None, dict[str, Any]()
        self._tape = Tape(lambda: private.prefetches(trainer), lambda: self._before_fetch(trainer))
        private.intercept_loader(trainer, self._record)
        private.intercept_resume(trainer, lambda path: self._choose_path(trainer, path))

    def _check_package(self, trainer: Any) -> None:
        found = private.package_of(trainer)
        if found != self.package:
            module = "ckpt_callbacks.lightning" if found.startswith("lightning") else "ckpt_callbacks.pytorch_lightning"
            raise ConfigurationError(
                f"the Trainer comes from {found}, but this Checkpointer is for {self.package}. Import it from {module}."
            )

    def _choose_path(self, trainer: Any, path: str | Path | None) -> Any:
        """What `Trainer.fit` loads: this run's snapshot or the one that the user named, else what the user named."""
        named = path if path is not None and snapshot_io.names_snapshot(path) else None
        versions = {name: importlib.metadata.version(name) for name in (self.framework, "torch")}
        self._restored = self.begin(versions, load=named)
        if self._restored is None:
            return path
        self._tape.pend(self._restored.rest["tape"] or _NO_EPOCH)
        # A run that stopped early has nothing left to do, unless the user points at a snapshot to go on from.
        trainer.should_stop = named is None and self._restored.rest["trainer"]["should_stop"]
        return self._restored.snapshot.path

    def _load(self, path: str | Path) -> dict[str, Any]:
        if self._restored is not None and Path(path) == self._restored.snapshot.path:
            return state.to_checkpoint(self._restored)
        return state.for_evaluation(self.read(path))

    def _record(self, loaders: Any) -> Any:
        """Wrap what the user's `train_dataloader` gave into the loader that remembers."""
        combined = importlib.import_module(f"{self.package}.utilities").CombinedLoader
        if isinstance(loaders, combined):
            return recording(combined)(loaders.iterables, loaders._mode, self._tape)
        return recording(combined)(loaders, "max_size_cycle", self._tape)

    # Boundaries and what happens between them ----------------------------------------------------------------------

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Put back a snapshot from between two epochs: the next epoch's own hooks must see it."""
        if self._fitting:
            self.rehearse(state.capture(trainer, self._tape, "between epochs"))
            self._put_back(trainer, "between epochs")
            self._training = True

    def _before_fetch(self, trainer: Any) -> None:
        """The boundary. Before training starts, Lightning may fetch a batch ahead: that is none."""
        if self._training and not private.hands_out_iterator(trainer):
            self._between_batches(trainer)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """The boundary of a module that fetches for itself: its fetches lie within a batch."""
        if self._training and private.hands_out_iterator(trainer):
            self._between_batches(trainer)

    def _between_batches(self, trainer: Any) -> None:
        if not self._put_back(trainer, "between batches"):
            self._observe(trainer, "between batches")

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Metrics were measured on the weights of the coming boundary."""
        if not trainer.sanity_checking:
            self._events |= Event.VALIDATION_END

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """An epoch is over; the boundary comes with the next one's first batch."""
        self._events |= Event.EPOCH_END

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """The last boundary."""
        if self._fitting:
            self._training = False
            self._events |= Event.FIT_END
            self._observe(trainer, "between epochs")

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Save if the interruption left a clean state, as Lightning's answer to SIGTERM does."""
        if not self._fitting:
            return
        if trainer.received_sigterm and isinstance(exception, SystemExit):
            # Lightning leaves with 0, which tells a scheduler that the job is done.
            exception.code = exit_code(signal.SIGTERM)
        try:
            where = state.clean_point(trainer)
            if where is not None and self._training and not isinstance(exception, CheckpointError):
                self._events |= Event.EXCEPTION | (Event.SIGNAL if trainer.received_sigterm else Event.NONE)
                self._observe(trainer, where)
            self._finish(trainer)
        except CheckpointError as error:  # the user must see what ended training, not what we failed to do about it
            warn(f"no last snapshot: {error}")

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """A run that was already complete never started to train: put its last state back here."""
        if self._fitting:
            self._put_back(trainer, "between epochs", "between batches", complete=True)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Make everything durable before `fit` returns."""
        if self._fitting:
            self._finish(trainer)

    # Helpers -------------------------------------------------------------------------------------------------------

    def _observe(self, trainer: Any, where: state.Where) -> None:
        if where == "between epochs":
            self._tape.epoch_over()
        events, self._events = self._events, Event.NONE
        metrics = self._fresh_metrics(trainer) if events else {}
        self.boundary(
            state.progress_of(trainer, where), events, metrics, lambda: state.capture(trainer, self._tape, where)
        )

    def _fresh_metrics(self, trainer: Any) -> dict[str, Any]:
        """The metrics that were logged since last asked: Lightning keeps old ones for ever, but makes a new tensor
        whenever it updates one."""
        before, self._metrics = self._metrics, dict(trainer.callback_metrics)
        return {name: value for name, value in self._metrics.items() if before.get(name) is not value}

    def _put_back(self, trainer: Any, *places: state.Where, complete: bool = False) -> bool:
        """Put the chosen snapshot back if it was captured at this place; tell whether it was."""
        restored = self._restored
        if restored is None or restored.rest["where"] not in places:
            return False
        self._restored = None
        state.put_back(trainer, restored)
        self._metrics = dict(trainer.callback_metrics)
        self.resumed_at(restored, complete=complete, replayed=self._tape.replayed, seconds=self._tape.seconds)
        return True

    def _finish(self, trainer: Any) -> None:
        self._fitting = self._training = False
        private.release(trainer)
        self.end()
