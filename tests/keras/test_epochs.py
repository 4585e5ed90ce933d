"""The tape of an epoch iterator: left anywhere, a new one goes on with the very same batches.

In one process, over the data that Keras knows on TensorFlow; `test_exact_resume` does it with processes and models.
"""

from __future__ import annotations

import copy
import os
import random

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src.backend.tensorflow.trainer import TFEpochIterator

from ckpt_callbacks.errors import ResumeError
from ckpt_callbacks.keras.epochs import Tape
from ckpt_callbacks.state import random_state

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")

X = np.arange(24, dtype="float32").reshape(12, 2)
BATCHES = 4


class Shuffled(keras.utils.PyDataset):
    """Shuffles itself between epochs."""

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        self.order = np.arange(len(X))

    def __len__(self) -> int:
        return BATCHES

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        chosen = self.order[3 * index : 3 * index + 3]
        return X[chosen], X[chosen, :1]

    def on_epoch_end(self) -> None:
        np.random.shuffle(self.order)


def generated():
    rng = np.random.default_rng(1)
    while True:
        chosen = rng.integers(0, len(X), 3)
        yield X[chosen], X[chosen, :1]


DATA = {
    "arrays": lambda: {"x": X, "y": X[:, :1], "batch_size": 3, "shuffle": True},
    "arrays, several epochs of one iterator": lambda: {**DATA["arrays"](), "steps_per_epoch": 2},
    "tf.data": lambda: {"x": tf.data.Dataset.from_tensor_slices((X, X[:, :1])).shuffle(12).batch(3)},
    "tf.data without length": lambda: {
        "x": tf.data.Dataset.from_tensor_slices((X, X[:, :1])).shuffle(12).filter(lambda *_: True).batch(3)
    },
    "PyDataset": lambda: {"x": Shuffled()},
    "PyDataset, shuffled by Keras": lambda: {"x": Shuffled(), "shuffle": True},
    "PyDataset with workers": lambda: {"x": Shuffled(workers=2), "shuffle": True},
    "generator": lambda: {"x": generated(), "steps_per_epoch": BATCHES},
}


class Reader:
    """Reads epochs as fit does, and tells each boundary."""

    def __init__(self, kind: str, seed: int = 1) -> None:
        keras.utils.set_random_seed(1)
        self.iterator = TFEpochIterator(**DATA[kind](), distribute_strategy=tf.distribute.get_strategy())
        self.iterator.reset()
        if seed != 1:  # what ran before is another matter in each process
            random.seed(seed)
            np.random.seed(seed)
        self.boundaries: list[tuple[int, dict, dict]] = []
        self.states: dict | None = None
        self.tape = Tape(self.iterator, self._boundary)

    def _boundary(self, batch: int) -> None:
        if self.states is not None:
            random_state.restore({name: part for name, part in self.states.items() if name not in self.tape.left})
            self.states = None
        self.boundaries.append((batch, self.place(), random_state.capture()))

    def place(self) -> dict:
        """As a snapshot keeps it: not as something that changes with the data set."""
        return copy.deepcopy(self.tape.as_dict())

    @property
    def second(self) -> list[tuple[int, dict, dict]]:
        """The boundaries of the second epoch."""
        begins = [number for number, (batch, *_) in enumerate(self.boundaries) if batch == 0]
        return self.boundaries[begins[1] : begins[2]]

    def epoch(self) -> list[bytes]:
        """The batches of one epoch."""
        read = []
        with self.iterator.catch_stop_iteration():
            for _, _, iterator in self.iterator:
                read.append(next(iterator)[0].numpy().tobytes())
        return read


def read(reader: Reader, epochs: int) -> list[list[bytes]]:
    """The batches of some epochs."""
    return [reader.epoch() for _ in range(epochs)]


@pytest.mark.parametrize("left_at", [0, 1, 2])
@pytest.mark.parametrize("kind", DATA)
def test_goes_on_with_the_same_batches(kind, left_at):
    """Left in its second epoch, the rest of it and the third are the same in a process that drew other numbers."""
    first = Reader(kind)
    whole = read(first, 3)
    batch, saved, states = first.second[min(left_at, len(whole[1]) - 1)]
    again = Reader(kind, seed=2)
    again.states = states
    again.tape.pend(saved, batch)
    assert read(again, 2) == [whole[1][batch:], whole[2]]
    assert again.tape.skipped + again.tape.replayed == saved["fetched"]


@pytest.mark.parametrize("kind", DATA)
def test_begins_the_next_epoch(kind):
    """Left after its second epoch, the third is the same; generators are asked for all that came before."""
    first = Reader(kind)
    whole = read(first, 2)
    saved, states = first.place(), random_state.capture()
    whole += read(first, 1)
    again = Reader(kind, seed=2)
    random_state.restore(states)
    again.tape.pend_epoch(saved)
    assert read(again, 1) == whole[2:]


def test_data_that_got_shorter():
    """There is no such place any more."""
    first = Reader("PyDataset")
    read(first, 1)
    batch, saved, _ = first.boundaries[-1]
    again = Reader("PyDataset")
    again.tape.pend({**saved, "fetched": saved["fetched"] + BATCHES}, batch)
    with pytest.raises(ResumeError, match="the data ended after 4 batches"):
        read(again, 1)


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        ("arrays", "replayed"),
        ("PyDataset", "skipped by index"),
        ("generator", "replayed from where its generator began"),
    ],
)
def test_tells_how_it_gets_back(kind, how):
    """In a few words, when fit starts."""
    assert Reader(kind).tape.how == how
