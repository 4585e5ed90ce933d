"""What lies behind a fit's data, where more is known of it than of any iterator: a `PyDataset`, a `tf.data.Dataset`."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from ckpt_callbacks.errors import ResumeError
from ckpt_callbacks.keras import private
from ckpt_callbacks.state import encode, random_state
from ckpt_callbacks.state.objects.attributes import Attributes
from ckpt_callbacks.state.tree import to_json

__all__ = ["Iterations", "Memory", "Passed", "Source", "irregular", "moved", "same", "without"]

_LOCAL = ("python", "numpy", "torch")


class Iterations:
    """Counts how often the data was iterated, and makes up for iterations that an earlier process made.

    A `tf.data.Dataset` that shuffles takes its next seed each time it is iterated.

    Args:
        epoch_iterator: Keras' own, of training or of validation.
    """

    def __init__(self, epoch_iterator: Any) -> None:
        self.begun = 0
        self._epoch_iterator = weakref.ref(epoch_iterator)  # it ends with its fit, and by its end we know

    @property
    def shuffles(self) -> bool:
        """Whether it may matter how often: only a `tf.data.Dataset` remembers it."""
        return self.iterator is not None and private.batches.kind_of_data(self.iterator) == "TFDatasetAdapter"

    @property
    def iterator(self) -> Any:
        """The epoch iterator, while it lives."""
        return self._epoch_iterator()

    def count(self) -> None:
        """Count by itself from now on."""
        private.batches.replace_iterators(self.iterator, self._make)

    def _make(self, original: Callable[[], Any]) -> Any:
        if private.batches.iterates_at_once(self.iterator):
            self.begun += 1
            return original()
        return self._counted(iter(original()))  # torch's loader draws when it is made an iterator of

    def _counted(self, iterator: Iterator[Any]) -> Iterator[Any]:
        self.begun += 1  # at the first fetch; Keras makes iterators that it never uses
        yield from iterator

    def make_up(self, begun: int) -> None:
        """Iterate until the data was iterated ``begun`` times; no element is drawn."""
        for _ in range(self.begun, begun if self.shuffles else 0):
            private.batches.begin_iteration(self.iterator)
        self.begun = max(self.begun, begun)


class Passed:
    """Stands in a `PyDataset`'s place: notes what loading a batch draws, and gives batches that are to be passed over
    without loading them.

    Args:
        dataset: the user's.
    """

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        self._uses = self._left = 0
        self._sample: Any = None
        self.draws = False

    def pass_over(self, batches: int) -> None:
        """Don't load the next ``batches`` batches: the first one of them stands for all."""
        self._left, self._sample = batches, None

    def __getitem__(self, index: int) -> Any:
        if self._left:
            self._left -= 1
            if self._sample is None:
                self._sample = self._dataset[index]
            return self._sample
        self._uses += 1
        if self.draws or self._uses & (self._uses - 1):  # looked at in the 1st, 2nd, 4th, 8th ... use
            return self._dataset[index]
        before = random_state.capture(_LOCAL)
        batch = self._dataset[index]
        self.draws = not same(before, random_state.capture(_LOCAL))
        return batch

    def __len__(self) -> int:
        return len(self._dataset)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dataset, name)


class Memory:
    """What the objects behind the data remember: attributes that changed since fit began, generators and variables.

    Args:
        data: a `PyDataset`, torch `DataLoader` or `tf.data.Dataset`; others remember nothing.
        beside: other data, that remember what they share with these.

    Attributes:
        variables: those of TensorFlow's that loading changes.
        lost: what the last `capture` found and can't store, or could not put back -> why.
    """

    def __init__(self, data: Any, beside: Any = None) -> None:
        shared = {
            id(one) for one in [*private.datasets.variables_behind(beside), *private.batches.parts_of(beside).values()]
        }
        self.variables = [one for one in private.datasets.variables_behind(data) if id(one) not in shared]
        objects = {name: one for name, one in private.batches.parts_of(data).items() if id(one) not in shared}
        self._objects = objects
        holders = {name: one for name, one in objects.items() if hasattr(one, "__dict__")}
        self._attributes = Attributes(holders, lambda holder, name: True, list)
        self.lost: dict[str, str] = {}

    def capture(self) -> dict[str, Any]:
        """What they remember now."""
        attributes, self.lost = self._attributes.capture()
        return {
            "attributes": attributes,
            "generators": random_state.capture_generators(self._objects),
            "variables": [variable.numpy() for variable in self.variables],
        }

    def put_back(self, saved: Mapping[str, Any]) -> None:
        """Set what ``capture`` gave."""
        self._attributes.put_back(saved["attributes"])
        random_state.restore_generators(self._objects, saved["generators"])
        if [value.shape for value in saved["variables"]] != [tuple(one.shape) for one in self.variables]:
            raise ResumeError(
                "the functions of the data change other variables than they did: leave the data as it was"
            )
        for variable, value in zip(self.variables, saved["variables"], strict=True):
            variable.assign(value)


class Source:
    """The data of a fit.

    Args:
        epoch_iterator: Keras' own.
        deterministic: whether the user says that a source gives the same batches whenever it is made again.
    """

    def __init__(self, epoch_iterator: Any, deterministic: bool) -> None:
        self.kind = private.batches.kind_of_data(epoch_iterator)
        self.iterations = Iterations(epoch_iterator)
        #: Whether batches are loaded by a thread that runs ahead of training.
        self.runs_ahead = private.batches.loads_ahead(epoch_iterator)
        self._deterministic = deterministic
        data = private.batches.data_behind(epoch_iterator)
        self._python_generator = private.datasets.runs_generators(data)
        #: Whether worker threads or processes load batches as soon as an epoch begins.
        self.has_workers = private.batches.has_workers(epoch_iterator)
        dataset = private.batches.py_dataset(epoch_iterator)
        self._passed: Passed | None = None
        #: Whether batches are chosen by indices that are known without loading anything.
        self._by_index = private.batches.draws_indices(epoch_iterator)
        #: What the user's objects behind the data remember.
        self.memory = Memory(data)
        self._irregular = irregular(data, repeats=not private.batches.serves_many_epochs(epoch_iterator))
        self._python_out_of_order = private.datasets.runs_python_out_of_order(data)
        if dataset is not None:
            self._passed = Passed(dataset)
            private.batches.replace_py_dataset(epoch_iterator, self._passed)

    @property
    def how(self) -> str:
        """How a resume will reach the place in the data, in a few words."""
        if self._by_index or (self._passed is not None and not self.has_workers):
            return "skipped by index"
        return "replayed from where its generator began" if self.kind == "GeneratorDataAdapter" else "replayed"

    def missing(self, drawn: bool = False) -> dict[str, str]:
        """What drawing the data again can't be sure to bring back -> why, and the remedy.

        Args:
            drawn: whether Python's generators were drawn from since the data began.
        """
        if self._deterministic:
            return {}
        if self._irregular:
            return {f"data ({what})": why for what, why in self._irregular.items()}
        if drawn and self._python_out_of_order:
            return {"data (drawn out of order)": _PARALLEL if private.datasets.workers_are_orderly() else _BROKEN_OFF}
        if self.memory.variables and not private.datasets.workers_are_orderly():
            return {"data (drawn out of order)": _BROKEN_OFF}
        if self.kind == "GeneratorDataAdapter":
            return {
                "data (generator)": "it is drawn again from its beginning, and only you know whether it gives the same "
                "batches then; if it does, pass deterministic_data=True, else use a PyDataset"
            }
        if self.has_workers and not private.datasets.workers_are_orderly():
            return {
                "data (PyDataset with workers)": "on this backend Keras itself serves batches of an earlier pass when "
                "an epoch begins, as the threads' timing has it; pass workers=1, or deterministic_data=True"
            }
        if self._python_generator:
            return {
                "data (from_generator)": "it is drawn again from its beginning, and only you know whether it gives the "
                "same elements then; if it does, pass deterministic_data=True"
            }
        return {f"data ({path})": why for path, why in self.memory.lost.items()}

    def must_load(self, began_with: Mapping[str, Any]) -> bool:
        """Whether batches must be loaded again to get to a place, since loading them changes what comes after."""
        if not self._by_index and (self._passed is None or self.has_workers):
            return True
        draws = self._passed is not None and self._passed.draws and self.runs_ahead
        return draws or not same(self.memory.capture(), began_with)

    def drop(self, iterator: Iterator[Any], load: bool) -> None:
        """Take a batch that training had already; ``load`` tells whether it must be loaded for that."""
        if self._by_index and not load:
            private.batches.draw_index(iterator)
        else:
            next(iterator)

    def pass_over(self, batches: int) -> None:
        """Let the next batches come without loading them."""
        if self._passed is not None:
            self._passed.pass_over(batches)


_PARALLEL = (
    "its elements draw in whatever order threads come to them, so that no two runs are alike: leave out "
    "num_parallel_calls where it draws, or call tf.config.experimental.enable_op_determinism()"
)

_BROKEN_OFF = (
    "on this backend Keras begins to load before fit and breaks off, and for a while threads go on drawing, so that no "
    "two runs are alike: augment in the model, or draw in a PyDataset"
)


def irregular(data: Any, *, repeats: bool, endlessly: bool = False) -> dict[str, str]:
    """What a `tf.data.Dataset` does that iterating it as often as before does not bring back -> why, and the remedy.

    Args:
        data: of a fit.
        repeats: whether it is iterated again and again, and not once for all epochs.
        endlessly: whether an iteration of data without end may be left, or others take seeds meanwhile.
    """
    found = {}
    if private.datasets.draws_in_parallel(data):
        found["drawn in parallel"] = _PARALLEL
    if repeats and private.datasets.shuffles_within(data, endlessly):
        found["shuffled and repeated"] = (
            "it takes new seeds in the middle of an iteration, which can't be counted: shuffle after repeat() and "
            "concatenate(), or pass reshuffle_each_iteration=False"
        )
    return found


def moved(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, ...]:
    """The parts of the random state that data drew from in between; of several in a part each by itself."""
    parts = [name for name in _LOCAL if not same(before.get(name), now.get(name))]
    for part, names in _in_parts(before).items():
        later = now.get(part, {})
        parts += [f"{part} {name}" for name in names if not same(before[part][name], later.get(name))]
    return tuple(parts)


def without(states: Mapping[str, Any], left: Collection[str]) -> dict[str, Any]:
    """A random state without the parts that ``moved`` gave."""
    kept = {name: state for name, state in states.items() if name not in left}
    for part, names in _in_parts(kept).items():
        gone = [name for name in names if f"{part} {name}" in left]
        kept[part] = {name: one for name, one in kept[part].items() if name not in gone}
    return kept


def _in_parts(states: Mapping[str, Any]) -> dict[str, list[str]]:
    """Generators of TensorFlow and of scripts that may be drawn from by themselves, by the part that they are in."""
    return {part: list(states[part]) for part in ("scripts",) if part in states} | {
        part: ["generator"] for part in ("tensorflow",) if "generator" in states.get(part, {})
    }


def same(one: Any, other: Any) -> bool:
    """Whether two trees of plain values and arrays are equal, bit for bit."""
    a, b = encode(one, copy=False), encode(other, copy=False)
    return to_json(a.structure) == to_json(b.structure) and all(
        tensor.data.tobytes() == b.tensors[name].data.tobytes() for name, tensor in a.tensors.items()
    )
