"""Small training jobs for Keras. Each `Job` is one way that people train; `train` runs it in its own process."""

from __future__ import annotations

import json
import os
import time
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
from ckpt_callbacks.keras.epochs import Tape
from ckpt_callbacks.keras.live import Live
from ckpt_callbacks.keras.settings import Traced
from ckpt_callbacks.keras.sources import Iterations, Memory
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


class Gan(keras.Model):
    """A custom train_step with two optimizers, one of which Keras knows nothing of."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = layers.Dense(8, activation="relu"), layers.Dense(1)
        self.other_optimizer = keras.optimizers.Adam(0.02)

    def call(self, inputs: Any) -> Any:
        return self.second(self.first(inputs))

    def train_step(self, data: Any) -> Any:
        import tensorflow as tf

        x, y = data
        with tf.GradientTape(persistent=True) as tape:
            loss = self.compute_loss(x, y, self(x, training=True))
        for optimizer, layer in ((self.optimizer, self.first), (self.other_optimizer, self.second)):
            variables = layer.trainable_variables
            optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return {"loss": loss}


class Autoencoder(keras.Model):
    """A custom train_step and no call; of its parts one is unbuilt, and only the step knows what it is given."""

    def __init__(self, built: bool = False) -> None:
        super().__init__()
        self.encoder = keras.Sequential([keras.Input((6,)), layers.Dense(4, activation="relu"), layers.Dropout(0.2)])
        self.decoder = keras.Sequential([keras.Input((4,))] if built else [])
        self.decoder.add(layers.Dense(6))
        self.tracker, self.steps = keras.metrics.Mean(name="loss"), 0

    @property
    def metrics(self) -> list[Any]:
        return [self.tracker]

    def train_step(self, data: Any) -> Any:
        import tensorflow as tf

        self.steps += 1
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((self.decoder(self.encoder(data[0], training=True)) - data[0]) ** 2)
        variables = self.encoder.trainable_variables + self.decoder.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        self.tracker.update_state(loss)
        return {"loss": self.tracker.result()}


def images() -> keras.Model:
    """Augmentation layers, which draw by seed generators of their own."""
    return keras.Sequential(
        [
            keras.Input((6,)),
            layers.Reshape((2, 3, 1)),
            layers.RandomFlip(),
            layers.RandomContrast(0.3),
            layers.Flatten(),
            layers.Dense(1),
        ]
    )


def recurrent() -> keras.Model:
    """States that are carried from batch to batch."""
    inputs = keras.Input(batch_shape=(4, 6))
    steps = layers.Reshape((6, 1))(inputs)
    return keras.Model(inputs, layers.Dense(1)(layers.LSTM(4, stateful=True, dropout=0.2)(steps)))


def branched() -> keras.Model:
    """Two inputs, two outputs."""
    left, right = keras.Input((6,), name="left"), keras.Input((6,), name="right")
    both = layers.Dropout(0.2)(layers.Concatenate()([left, right]))
    return keras.Model({"left": left, "right": right}, [layers.Dense(1, name="one")(both), layers.Dense(1)(both)])


class Sampled(keras.utils.PyDataset):
    """Shuffles itself between epochs, and draws a random number for each batch."""

    def __init__(self, x: Any, y: Any, draws: bool = True, **options: Any) -> None:
        super().__init__(**options)
        self.x, self.y, self.draws = x, y, draws
        self.order = np.arange(len(x))

    def __len__(self) -> int:
        return 7

    def __getitem__(self, index: int) -> Any:
        chosen = self.order[4 * index : 4 * index + 4]
        noise = 0.1 * np.random.rand() if self.draws else 0.0
        return self.x[chosen] + np.float32(noise), self.y[chosen]

    def on_epoch_end(self) -> None:
        np.random.shuffle(self.order)


class Owning(Sampled):
    """Shuffles itself and draws by a random generator of its own."""

    def __init__(self, x: Any, y: Any) -> None:
        super().__init__(x, y)
        self.rng = np.random.default_rng(3)

    def __getitem__(self, index: int) -> Any:
        x, y = self.x[(chosen := self.order[4 * index : 4 * index + 4])], self.y[chosen]
        return x + self.rng.normal(0, 0.1, x.shape).astype("float32"), y

    def on_epoch_end(self) -> None:
        self.rng.shuffle(self.order)


class Reordered(Sampled):
    """Shuffles itself by a generator of its own, and gives noise by where a sample stands."""

    def __init__(self, x: Any, y: Any) -> None:
        super().__init__(x, y, draws=False)
        self.rng = np.random.default_rng(3)

    def __getitem__(self, index: int) -> Any:
        x, y = super().__getitem__(index)
        return x * (1 + 0.1 * index), y

    def on_epoch_end(self) -> None:
        self.rng.shuffle(self.order)


def generated(x: Any, y: Any) -> Any:
    """A plain generator without end, with a random generator of its own."""
    rng = np.random.default_rng(7)
    while True:
        chosen = rng.integers(0, len(x), 4)
        yield x[chosen], y[chosen]


def tf_data(x: Any, y: Any) -> Any:
    """The rows of the arrays as a `tf.data.Dataset`."""
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((x, y))


def augmented(data: Any) -> Any:
    """Rows that a layer of Keras augments while they are loaded."""
    layer = keras.Sequential([layers.GaussianNoise(0.1, seed=6), layers.RandomContrast(0.3)])
    return data.map(lambda x, y: (keras.ops.squeeze(layer(x[None, :, None, None], training=True)), y))


def split(data: Any) -> dict[str, Any]:
    """The same shuffled data for training and for validation."""
    return {"x": data.skip(3).batch(4), "validation_data": data.take(3).batch(3)}


def noisy(x: Any, y: Any) -> Any:
    """Draws with an op of TensorFlow, inside the pipeline."""
    import tensorflow as tf

    return x + 0.1 * tf.random.uniform(tf.shape(x)), y


def loader(x: Any, y: Any, **options: Any) -> Any:
    """A `torch.utils.data.DataLoader`."""
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    torch.manual_seed(4)
    return DataLoader(TensorDataset(torch.from_numpy(x), torch.from_numpy(y)), 4, shuffle=True, **options)


def noisy_loader(x: Any, y: Any) -> Any:
    """A `DataLoader` whose data set draws from torch's global generator for each sample."""
    import torch
    from torch.utils.data import DataLoader

    class Noisy(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return len(x)

        def __getitem__(self, index: int) -> Any:
            time.sleep(0.003)  # so that batches are loaded while others are trained on
            return torch.from_numpy(x[index]) + 0.1 * torch.randn(6), torch.from_numpy(y[index])

    torch.manual_seed(4)
    return DataLoader(Noisy(), 4, shuffle=True)


def drawn_in_python(x: Any, y: Any, draw: Any) -> Any:
    """A `tf.data.Dataset` that runs Python code of the user's, which draws."""
    import tensorflow as tf

    def noisy(row: Any) -> Any:
        time.sleep(0.003)  # so that batches are loaded while others are trained on
        return row + draw(0, 0.1, row.shape).astype("float32")

    def augment(row: Any, target: Any) -> Any:
        return tf.ensure_shape(tf.numpy_function(noisy, [row], tf.float32), (6,)), target

    return tf_data(x, y).shuffle(27, seed=2).map(augment).batch(4).prefetch(2)


GENERATOR = np.random.default_rng(9)


def own_generator() -> Any:
    """A generator of torch's that only the loader draws from."""
    import torch

    return torch.Generator().manual_seed(8)


class Warming(keras.callbacks.Callback):
    """A callback of the user's with a counter, by which it changes the learning rate after every batch."""

    def __init__(self) -> None:
        super().__init__()
        self.batches = 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.batches += 1
        self.model.optimizer.learning_rate.assign(0.01 / (1 + 0.1 * self.batches))


class Jittering(keras.callbacks.Callback):
    """A callback of the user's that draws from a generator of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.rng = np.random.default_rng(5)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.model.optimizer.learning_rate.assign(0.01 * self.rng.random())


class Factored(Subclassed):
    """Has an attribute that its step reads when it is traced."""

    factor = 1.0

    def call(self, inputs: Any, training: bool = False) -> Any:
        return super().call(inputs, training) * self.factor


class Raising(keras.callbacks.Callback):
    """Changes the model's attribute every epoch; a compiled step doesn't hear of it, the learning rate does."""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.model.factor += 0.25
        self.model.optimizer.learning_rate.assign(0.01 * self.model.factor)


class Settling(keras.callbacks.Callback):
    """In the second epoch: less dropout, batch norm frozen, gradients clipped, and the step is made anew."""

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if epoch == 1:
            self.model.layers[1].trainable = False
            self.model.layers[4].rate = 0.1
            self.model.optimizer.clipnorm = 0.01
            self.model.make_train_function(force=True)


class Averaging(keras.callbacks.Callback):
    """Keeps averages of the weights as the backend's tensors, which the model gets at each epoch's end."""

    averages: Any = None

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        now = [keras.ops.copy(one) for one in self.model.trainable_variables]
        before = self.averages or now
        self.averages = [0.9 * old + 0.1 * new for old, new in zip(before, now, strict=True)]

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        for variable, average in zip(self.model.trainable_variables, self.averages, strict=True):
            variable.assign(average)


class Rising(keras.losses.Loss):
    """Weighs more with each call."""

    calls = 0

    def call(self, y_true: Any, y_pred: Any) -> Any:
        self.calls += 1
        return keras.ops.mean((y_true - y_pred) ** 2, -1) * (1 + 0.1 * self.calls)


class TensorFlows(layers.Layer):
    """Noise from a generator of TensorFlow's, that grows with a variable of TensorFlow's."""

    def __init__(self) -> None:
        super().__init__()
        import tensorflow as tf

        self.generator = tf.random.Generator.from_seed(4)
        self.scale = tf.Variable(0.0)

    def call(self, inputs: Any, training: bool = False) -> Any:
        if not training:
            return inputs
        self.scale.assign_add(0.02)
        return inputs + self.scale * self.generator.normal(keras.ops.shape(inputs))


class Counting(keras.callbacks.Callback):
    """Counts in a variable of TensorFlow's, by which it changes the learning rate."""

    def __init__(self) -> None:
        super().__init__()
        import tensorflow as tf

        self.count = tf.Variable(1.0)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.count.assign_add(1.0)
        self.model.optimizer.learning_rate.assign(0.1 / self.count)


def drawn_by_generator(x: Any, y: Any) -> Any:
    """A dataset that draws from a generator of TensorFlow's own."""
    import tensorflow as tf

    generator = tf.random.Generator.from_seed(5)
    return tf_data(x, y).map(lambda x, y: (x + 0.1 * generator.normal(tf.shape(x)), y)).batch(4).prefetch(2)


@dataclass(frozen=True)
class Job:
    """A model and how it is trained; ``data`` turns the arrays into what is passed to fit instead of them."""

    model: Any = dense
    data: Any = None
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
    "mixed bfloat16": Job(lambda: _mixed("mixed_bfloat16")),
    "mixed float16, loss scaling": Job(lambda: _mixed("mixed_float16")),
    "a schedule object": Job(
        compile={"optimizer": lambda: keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.05, 20), 0.9)}
    ),
    "swapped moving average of weights": Job(
        compile={"optimizer": lambda: keras.optimizers.Adam(0.01, use_ema=True)},
        callbacks=lambda: [keras.callbacks.SwapEMAWeights(swap_on_epoch=True)],
    ),
    "custom train_step, two optimizers": Job(Gan, compile={"metrics": None}),
    "custom train_step, no call": Job(
        lambda: Autoencoder(built=True), compile={"loss": None, "metrics": None}, fit={"validation_data": None}
    ),
    "custom train_step, no call, unbuilt": Job(
        Autoencoder, compile={"loss": None, "metrics": None}, fit={"validation_data": None}
    ),
    "augmentation layers": Job(images),
    "stateful recurrent layer": Job(
        recurrent, fit={"validation_data": None}, data=lambda x, y: {"x": x[:24], "y": y[:24]}
    ),
    "two inputs, two outputs, sample weights": Job(
        branched,
        compile={"metrics": None},
        data=lambda x, y: {
            "batch_size": 4,
            "x": {"left": x, "right": -x},
            "y": [y, 2 * y],
            "sample_weight": [x[:, 0] ** 2, x[:, 1] ** 2],
        },
        fit={"validation_data": None},
    ),
    "initial_epoch and validation_freq": Job(fit={"initial_epoch": 1, "epochs": 5, "validation_freq": 2}),
    "a callback with a counter": Job(callbacks=lambda: [Warming()]),
    "a callback that averages weights": Job(callbacks=lambda: [Averaging()]),
    "a callback that changes an attribute of the model": Job(Factored, callbacks=lambda: [Raising()]),
    "a callback that changes settings of layers": Job(callbacks=lambda: [Settling()]),
    "a callback that changes settings of layers, eagerly": Job(
        compile={"run_eagerly": True}, callbacks=lambda: [Settling()]
    ),
    "a loss that counts, eagerly": Job(compile={"run_eagerly": True, "loss": Rising()}),
    "variables and generators of TensorFlow": Job(
        lambda: keras.Sequential([keras.Input((6,)), TensorFlows(), layers.Dense(1)]), callbacks=lambda: [Counting()]
    ),
    "a callback with a generator of its own": Job(callbacks=lambda: [Jittering()]),
    "eagerly": Job(compile={"run_eagerly": True}),
    "several steps an execution, not dividing the epoch": Job(compile={"steps_per_execution": 3}),
    "tf.data, shuffled with a seed": Job(data=lambda x, y: {"x": tf_data(x, y).shuffle(27, seed=5).batch(4)}),
    "tf.data, shuffled without a seed": Job(data=lambda x, y: {"x": tf_data(x, y).shuffle(9).batch(4).prefetch(2)}),
    "tf.data that draws in a map": Job(data=lambda x, y: {"x": tf_data(x, y).shuffle(9).map(noisy).batch(4)}),
    "tf.data that draws from a generator of TensorFlow": Job(data=lambda x, y: {"x": drawn_by_generator(x, y)}),
    "tf.data that draws from NumPy": Job(data=lambda x, y: {"x": drawn_in_python(x, y, np.random.normal)}),
    "tf.data that draws from a global generator": Job(data=lambda x, y: {"x": drawn_in_python(x, y, GENERATOR.normal)}),
    "tf.data, repeated": Job(
        data=lambda x, y: {"x": tf_data(x, y).shuffle(9).repeat().batch(4)}, fit={"steps_per_epoch": 5, "epochs": 5}
    ),
    "tf.data, interleaved": Job(
        data=lambda x, y: {
            "x": tf_data(x, y).batch(9).interleave(lambda *rows: tf_data(*rows).shuffle(9), cycle_length=2).batch(4)
        }
    ),
    "tf.data without length": Job(data=lambda x, y: {"x": tf_data(x, y).shuffle(9).filter(lambda x, y: True).batch(4)}),
    "tf.data for validation, shuffled": Job(fit={"validation_data": lambda x, y: tf_data(x, y).shuffle(9).batch(4)}),
    "tf.data, shuffled, then split": Job(data=lambda x, y: split(tf_data(x, y).shuffle(27, seed=3))),
    "tf.data, augmented by layers": Job(
        data=lambda x, y: {"x": augmented(tf_data(x, y).shuffle(9)).batch(4).prefetch(2)}
    ),
    "tf.data, augmented by layers, then split": Job(
        data=lambda x, y: split(augmented(tf_data(x, y).shuffle(27, seed=3)))
    ),
    "tf.data, some of it for validation": Job(
        data=lambda x, y: {"x": (data := tf_data(x, y).shuffle(9).batch(4)), "validation_data": data.take(2)}
    ),
    "tf.data, split, several epochs of one iterator": Job(
        data=lambda x, y: split(tf_data(x, y).shuffle(27, seed=3)), fit={"steps_per_epoch": 2, "epochs": 6}
    ),
    "PyDataset for validation, draws": Job(fit={"validation_data": Sampled}),
    "PyDataset for validation, draws, every second epoch": Job(
        data=lambda x, y: {"x": tf_data(x, y).shuffle(9).batch(9)},
        fit={"validation_data": Sampled, "validation_freq": 2, "epochs": 6},
    ),
    "torch loader for validation, draws": Job(fit={"validation_data": noisy_loader}),
    "PyDataset for validation, shuffles itself": Job(fit={"validation_data": Reordered}),
    "PyDataset that shuffles itself and draws": Job(data=lambda x, y: {"x": Sampled(x, y)}),
    "PyDataset with a generator of its own": Job(data=lambda x, y: {"x": Owning(x, y)}),
    "PyDataset that draws nothing": Job(data=lambda x, y: {"x": Sampled(x, y, draws=False)}),
    "PyDataset, shuffled by Keras": Job(data=lambda x, y: {"x": Sampled(x, y), "shuffle": True}),
    "PyDataset, two worker threads": Job(
        data=lambda x, y: {"x": Sampled(x, y, draws=False, workers=2), "shuffle": True}
    ),
    "a generator": Job(data=lambda x, y: {"x": generated(x, y)}, fit={"steps_per_epoch": 7}),
    "torch loader": Job(data=lambda x, y: {"x": loader(x, y)}),
    "torch loader with a generator of its own": Job(data=lambda x, y: {"x": loader(x, y, generator=own_generator())}),
    "torch loader whose data set draws": Job(data=lambda x, y: {"x": noisy_loader(x, y)}),
    "torch loader, two workers": Job(data=lambda x, y: {"x": loader(x, y, num_workers=2)}),
}


def _mixed(policy: str) -> keras.Model:
    keras.config.set_dtype_policy(policy)
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
    Tape.pend = lambda self, saved, batch, placing: None  # type: ignore[method-assign]


def _no_callback_state() -> None:
    Live.put_back = lambda self, saved: None  # type: ignore[method-assign]


def _no_seeds() -> None:
    whole = keras.Variable.assign
    keras.Variable.assign = lambda self, value: None if "seed" in self.path else whole(self, value)  # type: ignore[method-assign]


def _no_iterations() -> None:
    Iterations.make_up = lambda self, begun: None  # type: ignore[method-assign]


def _no_memory_of_data() -> None:
    Memory.put_back = lambda self, saved: None  # type: ignore[method-assign]


def _no_traces() -> None:
    Traced.inherit = lambda self, traced, settings: None  # type: ignore[method-assign]


SWITCHES = {
    "settings as they were traced": _no_traces,
    "replay": _no_replay,
    "state of other callbacks": _no_callback_state,
    "seeds": _no_seeds,
    "iterations that were begun before": _no_iterations,
    "what the data remember": _no_memory_of_data,
}


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
    data = {"x": x, "y": y, "batch_size": 4} if job.data is None else job.data(x, y)
    if set(data) == {"x", "y"}:
        data["batch_size"] = 4
    options = {"epochs": EPOCHS, "validation_data": (x[:9], y[:9]), "verbose": 0, **data, **job.fit}
    if callable(options["validation_data"]):
        options["validation_data"] = options["validation_data"](x, y)
    history = model.fit(callbacks=callbacks, **options)
    Path(result + ".json").write_text(json.dumps({"epoch": history.epoch, "history": history.history}))
    Path(result + ".resumed").write_text(str(ours.resumed.step if ours.resumed else 0))
    np.savez(result + ".npz", **everything(model))


def everything(model: keras.Model) -> dict[str, np.ndarray]:
    """Weights, seeds, optimizer and the numpy generator as arrays."""
    found = {f"model/{i}": keras.ops.convert_to_numpy(v) for i, v in enumerate(model.variables)}
    found |= {f"optimizer/{i}": keras.ops.convert_to_numpy(v) for i, v in enumerate(model.optimizer.variables)}
    found["numpy"] = np.random.get_state()[1]
    return {key: np.frombuffer(np.ascontiguousarray(value).tobytes(), np.uint8) for key, value in found.items()}
