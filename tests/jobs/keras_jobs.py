"""Small training jobs for Keras. Each `Job` is one way that people train; `train` runs it in its own process."""

from __future__ import annotations

import json
import os
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import numpy as np
from keras import layers

from ckpt_callbacks import every_steps, on_end
from ckpt_callbacks.keras import Checkpointer
from ckpt_callbacks.keras.companions import Companions
from ckpt_callbacks.keras.epochs import Tape
from tests.processes import die

EPOCHS = 4


def dense() -> keras.Model:
    """Dropout, batch norm and noise: three kinds of state beside the weights."""
    return keras.Sequential(
        [
            keras.Input((6,)),
            layers.GaussianNoise(0.1),
            layers.Dense(16),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Dropout(0.3),
            layers.Dense(1),
        ]
    )


class Subclassed(keras.Model):
    """Not built before fit; its own train_step."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.drop, self.out = layers.Dense(8, activation="tanh"), layers.Dropout(0.2), layers.Dense(1)

    def call(self, inputs: Any, training: bool = False) -> Any:
        return self.out(self.drop(self.hidden(inputs), training=training))


class Noisy(keras.Model):
    """Draws numbers without a seed of its own, from the generator that Keras makes when it is first asked."""

    def __init__(self) -> None:
        super().__init__()
        self.out = layers.Dense(1)

    def call(self, inputs: Any) -> Any:
        return self.out(inputs)

    def compute_loss(self, *args: Any, **options: Any) -> Any:
        return super().compute_loss(*args, **options) * (1 + 0.1 * keras.random.uniform(()))


@dataclass(frozen=True)
class Job:
    """A model and how it is trained."""

    model: Any = dense
    compile: dict[str, Any] = field(default_factory=dict)
    callbacks: Any = list
    fit: dict[str, Any] = field(default_factory=dict)


JOBS: dict[str, Job] = {
    "arrays, shuffle, dropout": Job(),
    "validation_split": Job(fit={"validation_data": None, "validation_split": 0.25}),
    "not shuffled": Job(fit={"shuffle": False}),
    "shuffled by batch": Job(fit={"shuffle": "batch"}),
    "early stopping that restores the best weights": Job(
        callbacks=lambda: [keras.callbacks.EarlyStopping(patience=0, min_delta=0.2, restore_best_weights=True)],
        fit={"epochs": 9},
    ),
    "plateau schedule": Job(
        callbacks=lambda: [keras.callbacks.ReduceLROnPlateau(patience=1, min_delta=0.5, factor=0.3)]
    ),
    "schedule by epoch": Job(callbacks=lambda: [keras.callbacks.LearningRateScheduler(lambda epoch, lr: lr * 0.8)]),
    "subclassed model, unbuilt": Job(Subclassed),
    "unseeded keras.random in the loss": Job(Noisy),
    "gradient accumulation": Job(
        compile={"optimizer": lambda: keras.optimizers.Adam(0.01, gradient_accumulation_steps=3)}
    ),
    "moving average of weights": Job(compile={"optimizer": lambda: keras.optimizers.Adam(0.01, use_ema=True)}),
    "several steps an execution": Job(compile={"steps_per_execution": 2}),
    "steps_per_epoch over one iterator": Job(fit={"steps_per_epoch": 3, "epochs": 5}),
    "mixed bfloat16": Job(lambda: _mixed(), compile={}),
}


def _mixed() -> keras.Model:
    keras.config.set_dtype_policy("mixed_bfloat16")
    return dense()


class KillAt(keras.callbacks.Callback):
    """SIGKILL in the ``count``-th call of a hook."""

    def __init__(self, hook: str, count: int) -> None:
        super().__init__()
        self.left = count
        setattr(self, hook, self._called)

    def _called(self, *_: Any, **__: Any) -> None:
        self.left -= 1
        if self.left == 0:
            die()


def _no_replay() -> None:
    Tape.pend = lambda self, saved, batch: None  # type: ignore[method-assign]


def _no_callback_state() -> None:
    Companions.put_back = lambda self, saved: None  # type: ignore[method-assign]


def _no_seeds() -> None:
    whole = keras.Variable.assign
    keras.Variable.assign = lambda self, value: None if "seed" in self.path else whole(self, value)  # type: ignore[method-assign]


SWITCHES = {"replay": _no_replay, "state of other callbacks": _no_callback_state, "seeds": _no_seeds}


def train(
    name: str,
    directory: str,
    result: str,
    kill: tuple[str, int] | None = None,
    checkpoint: bool = True,
    ours_first: bool = False,
    without: str | None = None,
    background: bool = True,
    peer: bool = False,
) -> None:
    """Run one job to its end (or death) and write everything that must be equal to ``result`` (.npz and .json).

    Args:
        name: a key of `JOBS`.
        directory: the run.
        result: path without suffix.
        kill: hook and how many calls of it to survive, or None.
        checkpoint: False trains without our callback.
        ours_first: put our callback before the job's own ones instead of after them.
        without: a mechanism to switch off: the negative control.
        background: False makes each snapshot durable at once, so that the place of a kill tells where it resumes.
        peer: train with Keras' own BackupAndRestore, saving as often, instead of our callback.
    """
    if without is not None:
        SWITCHES[without]()
    warnings.simplefilter("ignore")
    job = JOBS[name]
    keras.utils.set_random_seed(1)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(27, 6)).astype("float32")
    y = x.sum(1, keepdims=True)
    model = job.model()
    options = {"optimizer": lambda: keras.optimizers.AdamW(0.01), "loss": "mse", "metrics": ["mae"], **job.compile}
    model.compile(**{**options, "optimizer": options["optimizer"]()})
    callbacks = [*job.callbacks()]
    ours = Checkpointer(directory, monitor="val_loss", save=every_steps(2) | on_end(), background=background)
    theirs = keras.callbacks.BackupAndRestore(directory, save_freq=2, delete_checkpoint=False)
    if checkpoint:
        callbacks.insert(0 if ours_first else len(callbacks), theirs if peer else ours)
    if kill:
        callbacks.append(KillAt(*kill))
    options = {"epochs": EPOCHS, "batch_size": 4, "validation_data": (x[:9], y[:9]), "verbose": 0, **job.fit}
    history = model.fit(x, y, callbacks=callbacks, **options)
    Path(result + ".json").write_text(json.dumps({"epoch": history.epoch, "history": history.history}))
    Path(result + ".resumed").write_text(str(ours.resumed.step if ours.resumed else 0))
    np.savez(result + ".npz", **everything(model))


def everything(model: keras.Model) -> dict[str, np.ndarray]:
    """Weights, seeds, optimizer and the numpy generator as arrays."""
    found = {f"model/{i}": keras.ops.convert_to_numpy(v) for i, v in enumerate(model.variables)}
    found |= {f"optimizer/{i}": keras.ops.convert_to_numpy(v) for i, v in enumerate(model.optimizer.variables)}
    found["numpy"] = np.random.get_state()[1]
    return {key: np.frombuffer(np.ascontiguousarray(value).tobytes(), np.uint8) for key, value in found.items()}
