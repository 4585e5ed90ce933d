"""What a `tf.data.Dataset` is made of, read from its graph."""

from __future__ import annotations

import types
from collections.abc import Iterator, Sequence
from typing import Any

import keras

__all__ = [
    "KERNEL_RANDOM",
    "draws_in_parallel",
    "is_dataset",
    "is_python_generator",
    "operations_of",
    "runs_generators",
    "runs_python_out_of_order",
    "share_a_shuffling",
    "shuffles_within",
    "steps_of",
    "variables_behind",
    "workers_are_orderly",
]

KERNEL_RANDOM = {
    *("RandomUniform", "RandomUniformInt", "RandomStandardNormal", "TruncatedNormal", "RandomShuffle", "Multinomial"),
    *("ParameterizedTruncatedNormal", "RandomGamma", "RandomPoissonV2"),
}
"""Kinds of operations whose random state nobody can read."""


def workers_are_orderly() -> bool:
    """Whether no pass over data that threads load is broken off before fit begins.

    With torch and JAX ``_symbolic_build`` takes one batch. What workers of a `PyDataset` loaded beyond it stays in
    ``enqueuer.ready_queue``, from where the first epoch is served; threads of tf.data go on for a while.
    """
    return bool(keras.backend.backend() == "tensorflow")


def runs_generators(data: Any) -> bool:
    """Whether data are a `tf.data.Dataset` that draws from a Python generator."""
    return any(kind == "GeneratorDataset" for function in _functions_in(data) for kind in operations_of(function))


def variables_behind(data: Any) -> list[Any]:
    """The variables that the functions of a `tf.data.Dataset` change: the seed generators of augmentation layers, say.

    Each function has them among ``graph.captures`` and, by the same handle, in ``graph.variables``, which has no order.
    What is only read, such as the weights of a whole model, is left out.
    """
    found = {}
    for function in _functions_in(data):
        if not any(map(_changes_variables, operations_of(function))):
            continue
        by_handle = {id(variable.handle): variable for variable in function.graph.variables}
        for outer, inner in function.graph.captures:
            if id(outer) in by_handle and any(one.type not in _READING for one in inner.consumers()):
                found[id(outer)] = by_handle[id(outer)]
    return list(found.values())


_READING = ("ReadVariableOp", "ResourceGather", "ResourceGatherNd", "VariableShape", "VarIsInitializedOp")


def _changes_variables(operation: str) -> bool:
    changing = ("Assign", "Rng", "ResourceScatter", "ResourceApply", "ResourceStridedSlice", "Stateful")
    return operation.startswith(changing) and not operation.endswith("PartitionedCall")


def draws_in_parallel(data: Any) -> bool:
    """Whether elements of a `tf.data.Dataset` draw while others are drawing, in whatever order threads come."""
    return any(
        kind in KERNEL_RANDOM or _changes_variables(kind)
        for function in _parallel_in(data)
        for kind in operations_of(function)
    )


def runs_python_out_of_order(data: Any) -> bool:
    """The same of Python code, of which only its draws tell whether it draws; see also ``workers_are_orderly``."""
    functions = _parallel_in(data) if workers_are_orderly() else _functions_in(data)
    return any("PyFunc" in kind for function in functions for kind in operations_of(function))


def _parallel_in(data: Any) -> Iterator[Any]:
    """The functions of steps with ``_num_parallel_calls``; TensorFlow runs these one by one if its ops shall be
    deterministic."""
    if not is_dataset(data):
        return
    from tensorflow.python.framework.config import is_op_determinism_enabled

    for step in steps_of(data):
        calls = getattr(step, "_num_parallel_calls", None)
        if calls is not None and int(calls) != 1 and not is_op_determinism_enabled():
            yield from (one.function for one in step._functions())


def shuffles_within(data: Any, endlessly: bool) -> bool:
    """Whether one iteration of a `tf.data.Dataset` takes several seeds of a shuffling, and not all of them when it
    begins.

    Args:
        data: of a fit.
        endlessly: whether repeating without end counts, too.
    """
    steps = steps_of(data) if is_dataset(data) else ()
    return any(_shufflings_in(one) for step in steps for one in _begun_later(step, endlessly))


def share_a_shuffling(one: Any, other: Any) -> bool:
    """Whether the same shuffling step stands in two `tf.data.Dataset`s: both take seeds from it."""
    return not set(map(id, _shufflings_in(one))).isdisjoint(map(id, _shufflings_in(other)))


def _shufflings_in(data: Any) -> list[Any]:
    """``_ShuffleDataset._reshuffle_each_iteration``: the steps that take new seeds whenever they are iterated."""
    steps = steps_of(data) if is_dataset(data) else ()
    return [step for step in steps if getattr(step, "_reshuffle_each_iteration", False)]


def _begun_later(step: Any, endlessly: bool) -> Sequence[Any]:
    """What a step of a dataset iterates when it has begun: ``_RepeatDataset._count``, ``_ConcatenateDataset``."""
    inputs: Sequence[Any] = step._inputs()
    if type(step).__name__ == "_RepeatDataset":
        count = int(step._count)
        return inputs if count > 1 or (endlessly and count < 0) else ()
    return inputs[1:] if type(step).__name__ == "_ConcatenateDataset" else ()


def is_dataset(data: Any) -> bool:
    """Whether data are a `tf.data.Dataset`: ``_inputs`` and ``_functions`` are what it is read by."""
    return hasattr(data, "_inputs") and hasattr(data, "_functions")


def _functions_in(data: Any) -> Iterator[Any]:
    """The functions of a `tf.data.Dataset` and all its steps, as they were traced: ``_functions``."""
    for step in steps_of(data) if is_dataset(data) else ():
        yield from (one.function for one in step._functions())


def operations_of(function: Any) -> Iterator[str]:
    """The kinds of operations in a traced function and in those that it calls."""
    graph = function.graph.as_graph_def()
    for nodes in (graph.node, *(inner.node_def for inner in graph.library.function)):
        yield from (node.op for node in nodes)


def is_python_generator(data: Any) -> bool:
    """Whether Keras reads data by its ``GeneratorDataAdapter``: it asks for this type."""
    return isinstance(data, types.GeneratorType)


def steps_of(dataset: Any) -> Iterator[Any]:
    """A `tf.data.Dataset` and those that it is made of: ``_inputs``."""
    yield dataset
    for one in dataset._inputs():
        yield from steps_of(one)
