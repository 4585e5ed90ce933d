"""Keras: ours, `ModelCheckpoint` (``.keras`` and ``.weights.h5``) and `BackupAndRestore`, on the same training."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow

from benchmarks.saving.measure import Figures, Inside, Meter, evict, make_durable, reserve_memory, serve, warm
from ckpt_callbacks import every_steps, keep_last
from ckpt_callbacks.keras import Checkpointer

BEGAN: list[float] = []
"""When each step of the fit began: not in an attribute, which a resume would bring back."""


ENDED: list[float] = []
"""When training was over and every callback before the clock had made its files durable.

`fit` may return later: TensorFlow's data iterator waits for a thread that has missed its call to end, and looks again
10.2 or 20.5 seconds after it began. All arms meet that, some of the time.
"""


class Clock(keras.callbacks.Callback):
    """When each step began, and when all was over."""

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Note the time."""
        BEGAN.append(time.perf_counter())

    def on_train_end(self, logs: Any = None) -> None:
        """Note the time."""
        ENDED.append(time.perf_counter())


Setup = tuple[list[Any], Inside]
"""Callbacks, and where the time inside them is gathered."""


def _none(directory: Path, every: int, durable: bool) -> Setup:
    return [], Inside()


def _ours(directory: Path, every: int, durable: bool) -> Setup:
    callback = Checkpointer(
        directory / "run", save=every_steps(every), keep=keep_last(2), durability="full" if durable else "none"
    )
    inside = Inside()
    callback.boundary = inside.saves(callback.boundary, lambda saved: saved is not None)  # type: ignore[method-assign]
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


def _flushing(callback: Any, path: Path, durable: bool) -> Inside:
    """Have a callback wait for the disk; gather how long it takes."""
    inside = Inside()
    name = "_save_model"
    save = getattr(callback, name)

    def both(*args: Any, **kwargs: Any) -> None:
        save(*args, **kwargs)
        if durable:
            make_durable(path)

    setattr(callback, name, inside.saves(both))
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
    tensorflow.config.threading.set_intra_op_parallelism_threads(options["threads"])
    figures = Figures()
    callbacks, inside = SETUPS[name](directory, every, options["durable"])
    model = _model(options)
    x = np.random.default_rng(2).standard_normal((options["batch"], options["width"]), np.float32)
    x = np.concatenate([x] * options["steps"])
    model.train_on_batch(x[:2], x[:2])  # the optimizer's variables belong to every arm
    with Meter(figures) as meter:
        model.fit(x, x, batch_size=options["batch"], shuffle=False, callbacks=[*callbacks, Clock()], verbose=0)
    figures.wall = ENDED[-1] - meter.began
    figures.steps = [later - earlier for earlier, later in itertools.pairwise(BEGAN)]
    figures.saves = 0 if name == "no checkpoints" else options["steps"] // every
    figures.inside = inside.times
    if options["restore"] and name in RESTORES:
        weights = [np.array(value) for value in model.get_weights()]
        del model
        for prepare, which in ((evict, "restore"), (warm, "restore_cached")):
            prepare(directory)
            reserve_memory(9 * sum(value.nbytes for value in weights))  # thrice the state of Adam
            seconds, exact = _resume(name, options, weights, x)
            setattr(figures, which, seconds)
            figures.exact = figures.exact and exact
    return figures


RESTORES = ("no checkpoints", "ours", "ModelCheckpoint .keras", "BackupAndRestore")


def _resume(name: str, options: dict[str, Any], weights: list[np.ndarray], x: np.ndarray) -> tuple[float, bool]:
    """Carry on: how long until the first step is done, and are the weights before it those that were trained?"""
    directory, compared, done = Path(options["directory"]), list[bool](), list[float]()

    class Compare(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            began = time.perf_counter()
            found = self.model.get_weights()
            compared.append(all(np.array_equal(one, other) for one, other in zip(found, weights, strict=True)))
            done.append(began - time.perf_counter())  # to compare is no part of it

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            done.append(time.perf_counter())
            self.model.stop_training = True

    start = time.perf_counter()
    if name == "ModelCheckpoint .keras":
        again, callbacks = keras.saving.load_model(directory / "model.keras"), []
    else:
        again = _model(options)
        callbacks, _ = SETUPS[name](directory, 10**9, options["durable"])
    callbacks = [*callbacks, Compare()]
    again.fit(x, x, batch_size=options["batch"], shuffle=False, epochs=2, verbose=0, callbacks=callbacks)
    return sum(done[:2]) - start, name == "no checkpoints" or compared[:1] == [True]


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
