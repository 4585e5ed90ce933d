"""Variables: what they hold, and those that no list of Keras has."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from ckpt_callbacks.keras.private.models import layers_of, leaves, own_attributes
from ckpt_callbacks.state.memory.pages import LARGE
from ckpt_callbacks.state.objects.kinds import is_variable
from ckpt_callbacks.state.random_state import is_generator
from ckpt_callbacks.state.tensors.safetensors_file import ALIGNMENT

__all__ = [
    "assign",
    "backing",
    "buffers_of",
    "global_seed",
    "loose_variables",
    "make_global_seed",
    "read",
    "variables_in",
]


def variables_in(holder: Any) -> dict[str, list[Any]]:
    """The variables of metrics, seed generators, layers and optimizers in the attributes of an object, by attribute.

    Bare ones are attributes like others.
    """
    found = {}
    for name, value in vars(holder).items():
        parts = list(leaves(value))
        lists = [_variables_of(part) for part in parts]
        if variables := [variable for one in lists for variable in one]:
            found[name] = variables
    return found


def _variables_of(value: Any) -> list[Any]:
    if isinstance(value, keras.random.SeedGenerator):
        return [value.state]
    kinds = (keras.Layer, keras.metrics.Metric, keras.optimizers.Optimizer)
    return list(value.variables) if isinstance(value, kinds) else []


def loose_variables(model: Any) -> list[Any]:
    """Variables that layers hold in attributes, but no list of the model's has: ``RNN.states`` of a stateful layer,
    variables of TensorFlow's own, and the states of its generators."""
    known = {id(variable) for variable in model.variables}
    if keras.backend.backend() == "tensorflow":  # JAX has none while it trains, and no variables of its own
        known |= {id(variable.value) for variable in model.variables}
    found = []
    for layer in layers_of(model):
        held = [value for name, value in vars(layer).items() if name not in own_attributes(keras.Layer)]
        for leaf in leaves(held):
            variable = getattr(leaf, "state", None) if is_generator(leaf) else leaf
            if is_variable(variable) and id(variable) not in known:
                known.add(id(variable))
                found.append(variable)
    return found


def global_seed() -> Any:
    """The state of the generator behind unseeded `keras.random` calls (``global_state``), or None if never used."""
    from keras.src.backend.common import global_state

    generator = global_state.get_global_attribute("global_seed_generator")
    return None if generator is None else generator.state


def make_global_seed() -> Any:
    """The same, made if need be: a resumed process may not have drawn an unseeded number yet."""
    from keras.src.random.seed_generator import global_seed_generator

    return global_seed_generator().state


def backing(variable: Any) -> Any:
    """``Variable._value``: what a variable of Keras is made of; on TensorFlow a variable, as functions of a dataset
    know it. Its public name draws an initial value where JAX keeps the value elsewhere."""
    return variable._value if isinstance(variable, keras.Variable) else variable


def read(variable: Any) -> Any:
    """What a variable holds, as an array that is good until the variable is assigned to, or longer.

    On TensorFlow it is a view: a variable that somebody has read is given other memory when it is assigned to. On torch
    it is one too, and changes with the variable.
    """
    held = backing(variable)
    if keras.backend.backend() == "torch" and held.device.type == "cpu" and not held.is_sparse:
        return held.detach().numpy() if held.dtype.itemsize > 2 else keras.ops.convert_to_numpy(variable)
    if keras.backend.backend() == "tensorflow" and np.dtype(held.dtype.as_numpy_dtype).kind in "biufc":
        return np.asarray(memoryview(held.read_value()))
    return keras.ops.convert_to_numpy(variable)


def assign(variable: Any, value: Any) -> None:
    """Give a variable a value whose memory nobody else will change.

    TensorFlow copies an array to make a tensor of it, into memory that is new, which takes longer than to read the
    file did. A large one is lent instead: TensorFlow copies what it does not own when the variable is next changed.
    """
    if keras.backend.backend() == "tensorflow" and _can_be_lent(value):
        import tensorflow as tf

        value = tf.experimental.dlpack.from_dlpack(value.__dlpack__())
    variable.assign(value)


def _can_be_lent(value: Any) -> bool:
    return (
        isinstance(value, np.ndarray)
        and value.nbytes >= LARGE
        and value.dtype.kind in "iuf"
        and value.dtype.isnative
        and value.flags.c_contiguous
        and value.flags.writeable
        and value.ctypes.data % ALIGNMENT == 0
    )


def buffers_of(model: Any) -> dict[str, Any]:
    """Buffers of torch modules in a `TorchModuleWrapper` (running means, say): they are no Keras variables."""
    return dict(model.named_buffers()) if keras.backend.backend() == "torch" else {}
