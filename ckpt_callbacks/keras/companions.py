"""The other callbacks of a fit: EarlyStopping, ReduceLROnPlateau, History, the user's own. Their attributes are state.

But only what changed since the fit began. What did not change is configuration, and belongs to the script: a patience
that the user raised before resuming stays raised.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ckpt_callbacks.errors import UnstorableError
from ckpt_callbacks.keras import private
from ckpt_callbacks.state import Encoded, encode

__all__ = ["Companions"]

# What belongs to the running fit and not to a callback's own state.
_CODE = (
    *(types.FunctionType, types.MethodType, types.BuiltinFunctionType, types.BuiltinMethodType),
    *(functools.partial, type, np.ufunc),
)
_NOT_STATE = ("_model", "model", "params", "validation_data")


class Companions:
    """The other callbacks, and what their attributes were when the fit began.

    Args:
        callbacks: all of fit's callbacks but ours, in order.
    """

    def __init__(self, callbacks: Sequence[Any]) -> None:
        self._callbacks = [callback for callback in callbacks if not private.is_plain_progress_bar(callback)]
        self._began = [_attributes(callback)[0] for callback in self._callbacks]

    def capture(self) -> tuple[list[dict[str, Any]], dict[str, str]]:
        """What changed in each, and what of the users' own callbacks can't be stored -> why."""
        found: list[dict[str, Any]] = []
        missing: dict[str, str] = {}
        for callback, began in zip(self._callbacks, self._began, strict=True):
            name = type(callback).__name__
            now, refused = _attributes(callback)
            if not type(callback).__module__.startswith("keras."):  # Keras' own keep what they need in plain values
                missing |= {f"callbacks[{name}].{key}": why for key, why in refused.items()}
            changed = [key for key, value in now.items() if key not in began or not _equal(value, began[key])]
            monitored = getattr(callback, "monitor_op", None) is not None
            attributes = {key: vars(callback)[key] for key in changed}
            found.append({"class": name, "monitored": monitored, "attributes": attributes})
        return found, missing

    def put_back(self, saved: Sequence[Mapping[str, Any]]) -> None:
        """Give each callback what had changed: the n-th of a class gets that of the n-th of that class."""
        waiting = list(saved)
        for callback in self._callbacks:
            state = next((one for one in waiting if one["class"] == type(callback).__name__), None)
            if state is None:
                continue
            waiting.remove(state)
            if state["monitored"]:
                private.prepare_monitor(callback)
            vars(callback).update(state["attributes"])


def _attributes(callback: Any) -> tuple[dict[str, Encoded], dict[str, str]]:
    """The attributes that can be state, copied; and those that can't be stored -> why. Functions are code."""
    storable: dict[str, Encoded] = {}
    refused: dict[str, str] = {}
    for key, value in vars(callback).items():
        if key in _NOT_STATE or isinstance(value, _CODE):
            continue
        try:
            storable[key] = encode(value)
        except UnstorableError:
            refused[key] = f"{type(value).__name__} can't be stored without pickle"
    return storable, refused


def _equal(one: Encoded, other: Encoded) -> bool:
    return one.structure == other.structure and all(
        tensor.data.tobytes() == other.tensors[name].data.tobytes() for name, tensor in one.tensors.items()
    )
