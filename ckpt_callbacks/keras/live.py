"""What training changes outside of the model's variables: attributes of other callbacks, and of a model run eagerly.

Noted when training begins; what differs from that at a boundary is state. What a compiled step reads from attributes
was fixed when it was traced, in the resumed process as in the first one, so there a model's attributes are left alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras

from ckpt_callbacks.keras import private
from ckpt_callbacks.messages import warn
from ckpt_callbacks.state import random_state
from ckpt_callbacks.state.attributes import Attributes

__all__ = ["Live"]

# What belongs to the running fit and not to a callback's own state.
_NOT_STATE = ("_model", "params", "validation_data")


class Live:
    """The live objects of a fit, and what their attributes were when it began.

    Args:
        model: being fitted.
        callbacks: all of fit's callbacks but ours, in order.
    """

    def __init__(self, model: Any, callbacks: Sequence[Any]) -> None:
        self._model = model
        self._callbacks = _named(one for one in callbacks if not private.is_plain_progress_bar(one))
        layers = private.layers_of(model) if private.runs_eagerly(model) else []
        self._layers = {
            f"layers[{number}] ({layer.name})": layer
            for number, layer in enumerate(layers)
            if not private.is_keras_own(type(layer))
        }
        self._attributes = Attributes(self._callbacks | self._layers, self._counts, self._elsewhere)

    def capture(self) -> tuple[dict[str, Any], dict[str, str]]:
        """What changed, and what of it can't be stored -> why."""
        attributes, missing = self._attributes.capture()
        monitored = [name for name, one in self._callbacks.items() if private.has_monitor(one)]
        variables = {
            f"{path}.{name}": [keras.ops.convert_to_numpy(one) for one in found]
            for path, name, found in self._variables()
        }
        generators = random_state.capture_generators(self._holders())
        found = {"attributes": attributes, "monitored": monitored, "variables": variables, "generators": generators}
        return found, missing

    def put_back(self, saved: Mapping[str, Any]) -> None:
        """Make everything what it was: the n-th callback of a class gets that of the n-th of that class."""
        for name in saved["monitored"]:
            if name in self._callbacks:
                private.prepare_monitor(self._callbacks[name])
        left = self._attributes.put_back(saved["attributes"])
        holders = self._holders()
        left += random_state.restore_generators(holders, saved["generators"])
        for path, one in (self._callbacks | self._layers).items():
            vars(one).update({name: now for name, now in holders[path].items() if vars(one).get(name) is not now})
        variables = {f"{path}.{name}": found for path, name, found in self._variables()}
        for path, values in saved["variables"].items():
            if [value.shape for value in values] != [tuple(one.shape) for one in variables.get(path, [])]:
                left.append(path)
                continue
            for variable, value in zip(variables[path], values, strict=True):
                variable.assign(value)
        for path in left:
            warn(f"{path} was in the snapshot, and has no place in the objects of this run: left as it is")

    def _variables(self) -> Iterator[tuple[str, str, list[Any]]]:
        """Variables that callbacks hold and the model does not: of a metric, say."""
        known = {id(one) for one in self._model.variables}
        for path, callback in self._callbacks.items():
            for name, found in private.variables_in(callback).items():
                if name not in _NOT_STATE and not known.issuperset(map(id, found)):
                    yield path, name, found

    def _holders(self) -> dict[str, dict[str, Any]]:
        """The attributes that may hold random generators, by the objects' names."""
        objects = self._callbacks | self._layers
        return {
            path: {name: value for name, value in vars(one).items() if self._counts(one, name)}
            for path, one in objects.items()
        }

    def _counts(self, holder: Any, name: str) -> bool:
        if any(holder is one for one in self._callbacks.values()):
            return name not in _NOT_STATE
        kind: Any = type(holder)
        return name not in private.own_attributes(kind)

    def _elsewhere(self) -> list[Any]:
        model = self._model
        return [model, *private.layers_of(model), *private.optimizers_of(model), *model.variables, *model.metrics]


def _named(callbacks: Any) -> dict[str, Any]:
    seen: Counter[str] = Counter()
    named = {}
    for callback in callbacks:
        kind = type(callback).__name__
        named[f"callbacks.{kind}[{seen[kind]}]"] = callback
        seen[kind] += 1
    return named
