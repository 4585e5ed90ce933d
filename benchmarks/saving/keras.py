"""Keras: ours, `ModelCheckpoint` (``.keras`` and ``.weights.h5``) and `BackupAndRestore`, on the same training."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from benchmarks.saving.measure import Figures, Meter, make_durable, serve, timed
from ckpt_callbacks import every_steps, keep_last
from ckpt_callbacks.keras import Checkpointer

DONE: list[float] = []
"""When each step of the fit was done."""


class Clock(keras.callbacks.Callback):
    """When each step began, and when it was done."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Note the time."""
        self.times.append(time.perf_counter())

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Note the time: not in an attribute, which a resume would bring back."""
        DONE.append(time.perf_counter())


Setup = tuple[list[Any], list[float]]
"""Callbacks, and where the time inside them is gathered."""


def _none(directory: Path, every: int, durable: bool) -> Setup:
    return [], []


def _ours(directory: Path, every: int, durable: bool) -> Setup:
    callback = Checkpointer(
        directory / "run", save=every_steps(every), keep=keep_last(2), durability="full" if durable else "none"
    )
    inside: list[float] = []
    callback._stage = timed(inside, callback._stage)  # type: ignore[method-assign]
    return [callback], inside


def _model_checkpoint(suffix: str, **options: Any) -> Callable[[Path, int, bool], Setup]:
    def setup(directory: Path, every: int, durable: bool) -> Setup:
        path = directory / f"model{suffix}"
        callback = keras.callbacks.ModelCheckpoint(path, save_freq=every, **options)
        return [callback], _flushing(callback, path, durable)

    return setup


def _backup(directory: Path, every: int, durable: bool) -> Setup:
    callback = keras.callbacks.BackupAndRestore(directory / "backup", save_freq=every, delete_checkpoint=False)
    return [callback], _flushing(callback, directory / "backup", durable)


def _flushing(callback: Any, path: Path, durable: bool) -> list[float]:
    """Have a callback wait for the disk; gather how long it takes."""
    inside: list[float] = []
    name = "_save_model"
    save = getattr(callback, name)

    def both(*args: Any, **kwargs: Any) -> None:
        save(*args, **kwargs)
        if durable:
            make_durable(path)

    setattr(callback, name, timed(inside, both))
    return inside


SETUPS = {
    "no checkpoints": _none,
    "ours": _ours,
    "ModelCheckpoint .keras": _model_checkpoint(".keras"),
    "ModelCheckpoint .weights.h5": _model_checkpoint(".weights.h5", save_weights_only=True),
    "BackupAndRestore": _backup,
}


def run(name: str, options: dict[str, Any]) -> Figures:
    """Train and save."""
    directory, every = Path(options["directory"]), options["every"]
    figures, clock = Figures(), Clock()
    callbacks, inside = SETUPS[name](directory, every, options["durable"])
    model = _model(options)
    x = np.random.default_rng(2).standard_normal((options["batch"], options["width"]), np.float32)
    x = np.concatenate([x] * options["steps"])
    model.train_on_batch(x[:2], x[:2])  # the optimizer's variables belong to every arm
    with Meter(figures):
        model.fit(x, x, batch_size=options["batch"], shuffle=False, callbacks=[*callbacks, clock], verbose=0)
    figures.steps = [later - earlier for earlier, later in zip(clock.times, clock.times[1:], strict=False)]
    figures.saves = 0 if name == "no checkpoints" else options["steps"] // every
    figures.inside = sorted(inside)[-figures.saves :] if figures.saves else []
    if name == "ours" and options["restore"]:
        again = _model(options)
        DONE.clear()
        began, clock = time.perf_counter(), Clock()
        callback = Checkpointer(directory / "run", save=every_steps(10**9))
        again.fit(x, x, batch_size=options["batch"], shuffle=False, epochs=2, verbose=0, callbacks=[callback, clock])
        figures.restore = DONE[0] - began
        figures.exact = callback.resumed is not None
    elif name == "ModelCheckpoint .keras" and options["restore"]:
        DONE.clear()
        began, clock = time.perf_counter(), Clock()
        again = keras.saving.load_model(directory / "model.keras")
        again.fit(x, x, batch_size=options["batch"], shuffle=False, verbose=0, callbacks=[clock])
        figures.restore = DONE[0] - began
    return figures


def _model(options: dict[str, Any]) -> keras.Model:
    keras.utils.set_random_seed(1)
    width = options["width"]
    model = keras.Sequential([keras.Input((width,)), *(keras.layers.Dense(width) for _ in range(options["layers"]))])
    for layer in model.layers[: options["frozen"]]:
        layer.trainable = False
    model.compile("adam", "mse")
    return model


if __name__ == "__main__":
    serve({name: lambda options, name=name: run(name, options) for name in SETUPS})
