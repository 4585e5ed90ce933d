"""Keras' hooks, handed on to the `Fit` that all our callbacks in a `model.fit` share. Nothing is decided here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from ckpt_callbacks.checkpointer import BaseCheckpointer
from ckpt_callbacks.keras import private
from ckpt_callbacks.keras.fit import Fit, settle_all

__all__ = ["Checkpointer"]


class Checkpointer(BaseCheckpointer, keras.callbacks.Callback):
    """Saves, keeps and restores snapshots of a `model.fit`.

    Takes the arguments of `ckpt_callbacks.checkpointer.BaseCheckpointer`.
    """

    framework = "keras"
    reads = ("keras",)
    determinism = "tf.config.experimental.enable_op_determinism(), or its like in another backend,"
    async_safe = True  # Keras need not wait for our batch hook

    _fit: Fit | None = None
    _led: Fit | None = None  # the same, if this callback is the first of ours in the fit: its hooks drive it

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Fit is about to start."""
        if self._fit is not None:
            self._fit.abandon()
        settle_all()
        running = private.fits.running_fit()
        ours = [callback for callback in running.callbacks if isinstance(callback, Checkpointer)]
        self._led = Fit(lambda: self.model, running, self.params, ours) if ours[0] is self else None
        self._fit = self._led or ours[0]._fit
        if fit := self._led:
            try:
                fit.start(running)
            except BaseException:
                fit.deafen()
                self._finish()
                raise

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """A batch was trained on; Keras may call this from a thread of its own."""
        if fit := self._led:
            fit.after_step(batch, logs or {})

    def on_test_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """A validation begins."""
        if fit := self._led:
            fit.validation_begins()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """An epoch is over, and its validation."""
        if fit := self._led:
            fit.epoch_ends(epoch, logs or {})

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Fit is over: everything is made durable before it returns."""
        led = self._led
        try:
            if led is not None:
                led.restore_best()
            self._finish()
        except BaseException:
            if led is not None:
                led.deafen()
            raise
        if led is not None:
            led.close()

    def wait(self) -> None:
        """Return when every snapshot taken so far is durable, also what a fit has left that an exception ended."""
        if self._fit is not None:
            self._fit.settle()
        super().wait()

    def _finish(self) -> None:
        if fit := self._led:
            fit.release()
        self._fit = self._led = None
        self.end()
