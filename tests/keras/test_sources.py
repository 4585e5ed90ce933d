"""What is known of the data behind a fit: how often it was iterated, and what loading a batch of it does."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src.backend.tensorflow.trainer import TFEpochIterator

from ckpt_callbacks.keras.sources import Iterations, Memory, Passed, Source, moved, same, without
from ckpt_callbacks.keras.validation import Validation

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")

X = np.arange(20, dtype="float32").reshape(10, 2)


def epoch_iterator(x: object, **options: object) -> TFEpochIterator:
    """What `model.fit` makes of its data."""
    return TFEpochIterator(x=x, distribute_strategy=tf.distribute.get_strategy(), **options)


class Rows(keras.utils.PyDataset):
    """Counts what is loaded, and does more than load if told to."""

    def __init__(self, draws: bool = False, counts: bool = False, **options: object) -> None:
        super().__init__(**options)
        self.draws, self.counts, self.count = draws, counts, 0
        self.loaded: set[int] = set()

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        if self.draws:
            np.random.rand()
        if self.counts:
            self.count += 1
        return X[2 * index : 2 * index + 2], X[2 * index : 2 * index + 2, :1]


class Seen(Rows):
    """Tells which batches it loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[int] = []

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        self.calls.append(index)
        return super().__getitem__(index)


def test_batches_passed_over_are_not_loaded():
    """The first one stands for all that are passed over; the next one is loaded as ever."""
    dataset = Seen()
    passed = Passed(dataset)
    passed.pass_over(4)
    for index in range(4):
        passed[index]
    assert dataset.calls == [0]
    assert np.array_equal(passed[4][0], X[8:])
    assert dataset.calls == [0, 4]


@pytest.mark.parametrize("draws", [True, False])
def test_a_stand_in_notes_what_loading_draws(draws):
    """So that batches whose loading draws random numbers are not passed over where that would be missed."""
    passed = Passed(Rows(draws=draws))
    assert not passed.draws
    for index in range(5):
        passed[index]
    assert passed.draws is draws


def test_a_stand_in_is_as_the_data_set():
    """Keras asks it for its length and its attributes."""
    passed = Passed(Rows(workers=1))
    assert len(passed) == 5
    assert passed.workers == 1
    assert passed.num_batches == 5


@pytest.mark.parametrize(("options", "must"), [({}, False), ({"counts": True}, True), ({"draws": True}, True)])
def test_what_must_be_loaded(options, must):
    """Batches whose loading changes what comes later: by the data set's own memory, or (TensorFlow) by its thread."""
    source = Source(epoch_iterator(Rows(**options)), deterministic=False)
    began = source.memory.capture()
    stand_in = source._passed
    for index in range(5):
        stand_in[index]
    assert source.must_load(began) is must


def test_attributes_of_the_data_are_put_back():
    """Those that changed; what is as it was belongs to the script."""
    dataset = Rows(counts=True)
    source = Source(epoch_iterator(dataset), deterministic=False)
    dataset[0]
    at = dataset.count
    saved = source.memory.capture()
    dataset[0], dataset[1]
    source.memory.put_back(saved)
    assert dataset.count == at


def test_generators_of_the_data_are_put_back():
    """A data set that draws from a generator of its own draws the same again."""
    dataset = Rows()
    dataset.rng = np.random.default_rng(0)
    source = Source(epoch_iterator(dataset), deterministic=False)
    saved = source.memory.capture()
    drawn = dataset.rng.random()
    source.memory.put_back(saved)
    assert dataset.rng.random() == drawn


@pytest.mark.parametrize("begun", [0, 1, 3])
def test_iterations_are_made_up_for(begun):
    """A data set that was iterated as often as before gives the order that comes next."""
    tf.random.set_seed(3)
    first = tf.data.Dataset.range(50).shuffle(50)
    expected = [list(first.as_numpy_iterator()) for _ in range(begun + 1)][-1]
    tf.random.set_seed(3)
    again = tf.data.Dataset.range(50).shuffle(50)
    iterator = epoch_iterator(again)
    iterations = Iterations(iterator)
    iterations.make_up(begun)
    assert iterations.begun == begun
    assert list(again.as_numpy_iterator()) == expected


def test_iterations_only_matter_for_tf_data():
    """Nothing is made up for where nothing remembers it."""
    iterator = epoch_iterator(Rows())
    iterations = Iterations(iterator)
    assert not iterations.shuffles
    iterations.make_up(3)
    assert iterations.begun == 3


def test_a_generator_is_named_unless_it_is_said_to_be_deterministic():
    """Only the user knows whether it gives the same batches again."""

    def endless():
        while True:
            yield X, X[:, :1]

    def missing(deterministic: bool) -> set[str]:
        return set(Source(epoch_iterator(endless(), steps_per_epoch=2), deterministic).missing())

    assert missing(False) == {"data (generator)"}
    assert missing(True) == set()


def rows() -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices(X).map(lambda x: (x, x[:1]))


def drawn_by_kernel(row: object, target: object) -> tuple[object, object]:
    return row + tf.random.uniform((2,)), target


def drawn_by_layer() -> object:
    generator = keras.random.SeedGenerator(1)
    return lambda x, y: (x + keras.random.uniform((2,), seed=generator), y)


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (lambda: rows().shuffle(9).batch(2), []),
        (lambda: rows().map(lambda x, y: (x, y), num_parallel_calls=2).shuffle(9).map(drawn_by_layer()).batch(2), []),
        (lambda: rows().map(drawn_by_kernel, num_parallel_calls=2).batch(2), ["drawn in parallel"]),
        (lambda: rows().map(drawn_by_layer(), num_parallel_calls=2).batch(2), ["drawn in parallel"]),
        (lambda: rows().shuffle(9).repeat(2).batch(2), ["shuffled and repeated"]),
        (lambda: rows().concatenate(rows().shuffle(9)).batch(2), ["shuffled and repeated"]),
        (lambda: rows().shuffle(9).concatenate(rows()).batch(2), []),
        (lambda: rows().shuffle(9, reshuffle_each_iteration=False).repeat(2).batch(2), []),
        (lambda: rows().repeat(2).shuffle(9).batch(2), []),
        (lambda: Rows(), []),
    ],
)
def test_what_counting_iterations_does_not_bring_back_is_named(data, named):
    """Seeds that are taken in the middle of an iteration, and numbers that are drawn in the order of threads."""
    assert list(Source(epoch_iterator(data()), deterministic=False).missing()) == [f"data ({one})" for one in named]


def test_python_code_that_draws_in_parallel_is_named_when_it_drew():
    """Most such code only loads: nobody can tell before."""

    def load(x, y):
        return tf.ensure_shape(tf.numpy_function(lambda x: x, [x], tf.float32), (2,)), y

    source = Source(epoch_iterator(rows().map(load, num_parallel_calls=2).batch(2)), deterministic=False)
    assert source.missing() == {}
    assert list(source.missing(drawn=True)) == ["data (drawn out of order)"]


@pytest.mark.parametrize(
    ("training", "named"),
    [
        (lambda shuffled: shuffled.skip(4), False),
        (lambda shuffled: shuffled.skip(4).repeat(), True),
        (lambda shuffled: rows().shuffle(9).repeat(), False),
    ],
)
def test_training_that_takes_seeds_between_those_of_validation_is_named(training, named):
    """Both take them from one shuffling, and training in the middle of its only iteration."""
    shuffled = rows().shuffle(9)
    assert bool(Validation(shuffled.take(4), training(shuffled)).missing()) is named


def test_variables_that_functions_of_the_data_change():
    """They are put back; what is only read is left alone, and what training has as well is its."""
    read, changed = tf.Variable(1.0), tf.Variable(2.0)

    def count(x, y):
        changed.assign_add(read)
        return x, y

    data = rows().map(count)
    memory = Memory(data.take(4))
    assert memory.variables == [changed]
    saved = memory.capture()
    list(data)
    assert changed.numpy() == 12.0
    memory.put_back(saved)
    assert changed.numpy() == 2.0
    assert Memory(data.skip(4), beside=data).variables == []


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [(1, 1, True), (1, 1.0, False), ([X], [X.copy()], True), ([X], [X + 1], False), (None, [], False)],
)
def test_same_is_bit_for_bit(one, other, equal):
    """Values of another type are not the same."""
    assert same(one, other) is equal


def test_what_a_thread_of_the_data_drew_is_not_put_back():
    """Parts that moved are told by name, those of scripts each by its own."""
    before = {"numpy": 1, "python": 2, "scripts": {"job.rng": 3, "job.other": 4}, "tensorflow": {"seed": 5, "rng": 6}}
    now = {"numpy": 7, "python": 2, "scripts": {"job.rng": 8, "job.other": 4}, "tensorflow": {"seed": 5, "rng": 9}}
    left = moved(before, now)
    assert left == ("numpy", "scripts job.rng")
    assert without(before, left) == {
        "python": 2,
        "scripts": {"job.other": 4},
        "tensorflow": {"seed": 5, "rng": 6},
    }
