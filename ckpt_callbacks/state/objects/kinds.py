"""What a value in an attribute is: a container, a tensor, an object of the user's, or nothing that training changes.

Only types are asked, and never by a method of the user's.
"""

from __future__ import annotations

import array
import collections
import dataclasses
import enum
import functools
import io
import logging
import queue
import sys
import threading
import types
import weakref
from collections import Counter, OrderedDict, defaultdict, deque
from typing import Any

import numpy as np

from ckpt_callbacks.state.objects.scripts import is_script
from ckpt_callbacks.state.tree import codecs
from ckpt_callbacks.state.tree.grammar import knows_factory

__all__ = [
    "base_of",
    "fields_of",
    "has_variables",
    "is_code",
    "is_frameworks",
    "is_immutable",
    "is_iterator",
    "is_of_its_own_kind",
    "is_parameter",
    "is_shared",
    "is_stateful",
    "is_tensor",
    "is_users",
    "is_value",
    "is_variable",
    "is_walked",
    "package_of",
    "slots_of",
]

# Trainers, loggers and the like have their own ways into a snapshot, or none.
_FRAMEWORKS = (
    *("torch", "torchmetrics", "torchvision", "torchaudio", "torchdata", "transformers", "timm", "ckpt_callbacks"),
    *("pytorch_lightning", "lightning", "lightning_fabric", "lightning_utilities", "keras", "tensorflow", "jax"),
)
_CODE = (
    *(types.FunctionType, types.MethodType, types.BuiltinFunctionType, types.BuiltinMethodType, types.ModuleType),
    *(functools.partial, type, np.ufunc),
    *(io.IOBase, logging.Logger, threading.Thread, type(threading.Lock()), weakref.ref),
)
_STANDARD = (collections.UserDict, collections.UserList, collections.ChainMap, queue.Queue)
_BASES = (list, tuple, OrderedDict, dict, deque, set, frozenset)
_STORED = (*_BASES, Counter)


# Whose it is ----------------------------------------------------------------------------------------------------------


def package_of(kind: type) -> str:
    """The package that a class comes from."""
    return kind.__module__.partition(".")[0]


def is_frameworks(kind: type) -> bool:
    """Whether a class is a framework's, whose objects have their own ways into a snapshot."""
    return package_of(kind) in _FRAMEWORKS


def is_users(kind: type, home: str | None) -> bool:
    """Whether a class is a user's own: of the package ``home``, or of a module that nobody installed."""
    return package_of(kind) == home or (not is_frameworks(kind) and is_script(kind.__module__))


# What it is -----------------------------------------------------------------------------------------------------------


def base_of(value: Any) -> Any:
    """The builtin class whose content a container has (a user's subclass of it among them); None for what is none."""
    kind = type(value)
    return kind if kind in _BASES else next((base for base in _BASES if issubclass(kind, base)), None)


def is_of_its_own_kind(value: Any) -> bool:
    """Whether a container is more than its content, so that a file can't bring it back, but only fill it."""
    kind = type(value)
    if kind is defaultdict:
        return not knows_factory(value.default_factory)
    known = kind in _STORED or kind in codecs.BY_TYPE or is_frameworks(kind)
    return not (known or issubclass(kind, tuple) or base_of(value) is None)


def is_immutable(value: Any) -> bool:
    """Values that many attributes may share without being one."""
    return value is None or isinstance(value, bool | int | float | complex | str | bytes | enum.Enum)


def is_shared(value: Any) -> bool:
    """Whether it matters that two attributes have the same one: what is done to it through one shows in the other."""
    base = base_of(value)
    return (
        is_tensor(value)
        or is_stateful(value)
        or is_variable(value)
        or (base is not None and base not in (tuple, frozenset))
    )


def is_code(value: Any) -> bool:
    """Functions, classes, threads, files: what a script makes anew."""
    return isinstance(value, _CODE)


def has_variables(value: Any) -> bool:
    """Whether a value is a user's function that refers to variables of an enclosing one."""
    function = type(value) is types.FunctionType and value.__closure__ is not None
    return function and is_script(value.__module__ or "")


def is_iterator(value: Any) -> bool:
    """Whether a value is one of which nobody can tell how far it got."""
    return hasattr(type(value), "__next__") and not is_walked(value, None)


def is_tensor(value: Any) -> bool:
    """Arrays of numpy, tensors of torch."""
    torch = sys.modules.get("torch")
    return isinstance(value, np.ndarray) or (torch is not None and isinstance(value, torch.Tensor))


def is_variable(value: Any) -> bool:
    """A variable of Keras or TensorFlow: it is assigned to, never replaced."""
    keras, tensorflow = sys.modules.get("keras"), None
    if package_of(type(value)) == "tensorflow":
        tensorflow = sys.modules.get("tensorflow")
    return (keras is not None and isinstance(value, keras.Variable)) or (
        tensorflow is not None and isinstance(value, tensorflow.Variable)
    )


def _is_other_array(value: Any) -> bool:
    """A tensor of TensorFlow or JAX: nothing can change it, so it is a value like a number."""
    package = package_of(type(value))
    if package == "tensorflow":
        return isinstance(value, sys.modules["tensorflow"].Tensor)
    return package in ("jax", "jaxlib") and isinstance(value, sys.modules["jax"].Array)


def is_parameter(value: Any) -> bool:
    """A parameter of torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.nn.Parameter)


def _is_module(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.nn.Module)


def is_stateful(value: Any) -> bool:
    """Optimizers, schedulers, averages of other libraries: their own ``state_dict`` says what they are."""
    kind = type(value)
    if _is_module(value) or not (hasattr(kind, "state_dict") and hasattr(kind, "load_state_dict")):
        return False
    return not is_users(kind, None) and (package_of(kind) == "torch" or not is_frameworks(kind))


def is_walked(value: Any, home: str | None) -> bool:
    """Whether a value's attributes are looked at: objects of users, any dataclass, modules outside of any tree, and the
    standard library's containers that are objects."""
    if is_immutable(value) or is_tensor(value) or type(value) in codecs.BY_TYPE or is_code(value):
        return False
    if base_of(value) is not None or isinstance(value, BaseException):
        return False
    looked_at = _is_module(value) or is_users(type(value), home) or dataclasses.is_dataclass(type(value))
    looked_at = looked_at or isinstance(value, _STANDARD)
    return looked_at and (fields_of(value) is not None or slots_of(value) != {})


def is_value(value: Any) -> bool:
    """What is worth comparing even in an object that is no user's."""
    if is_immutable(value) or is_tensor(value) or is_stateful(value) or type(value) in codecs.BY_TYPE:
        return True
    if is_variable(value) or _is_other_array(value):
        return True
    return base_of(value) is not None or isinstance(value, bytearray | array.array | np.generic)


# What it is made of ---------------------------------------------------------------------------------------------------


def fields_of(value: Any) -> dict[str, Any] | None:
    """An object's ``__dict__``, if it has one."""
    try:
        found = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return None
    return found if type(found) is dict else None


def slots_of(value: Any) -> dict[str, Any]:
    """The slots of an object's class and its bases, by name."""
    return {
        name: slot
        for kind in reversed(type(value).__mro__)
        if "__slots__" in kind.__dict__
        for name, slot in kind.__dict__.items()
        if type(slot) is types.MemberDescriptorType
    }
