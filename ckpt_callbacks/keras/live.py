"""What training changes outside of the model's variables: attributes of callbacks, and settings of what computes.

Noted when training begins; what differs from that at a boundary is state.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from ckpt_callbacks.keras import private
from ckpt_callbacks.keras.settings import Known, Settings, Traced, joined
from ckpt_callbacks.messages import warn
from ckpt_callbacks.state import random_state
from ckpt_callbacks.state.objects import scripts
from ckpt_callbacks.state.objects.attributes import Attributes
from ckpt_callbacks.state.objects.kinds import is_variable

__all__ = ["Live"]

# What belongs to the running fit and not to a callback's own state.
_NOT_STATE = ("_model", "params", "validation_data")


class Live:
    """The live objects of a fit, and what their attributes were when it began.

    Args:
        current: gives the model being fitted, with the state of now in its variables.
        callbacks: all of fit's callbacks but ours, in order.
        of_data: variables of TensorFlow's that are the data's own.
    """

    def __init__(self, current: Callable[[], Any], callbacks: Sequence[Any], of_data: Sequence[Any] = ()) -> None:
        model, self._of_data = current(), frozenset(map(id, of_data))
        self._model, self._optimizer = model, model.optimizer
        self._callbacks = _named(one for one in callbacks if not private.fits.is_plain_progress_bar(one))
        self._known = Known(model)
        self._attributes = Attributes(self._callbacks, lambda _, name: name not in _NOT_STATE, self._known)
        self._settings = Settings(model, self._known)
        self._traced = Traced(current, self._settings)

    def capture(self) -> tuple[dict[str, Any], dict[str, str]]:
        """What changed, and what of it can't be stored -> why."""
        self._known.look()
        attributes, missing = self._attributes.capture()
        settings, lost = self._settings.capture()
        variables = {
            path: [keras.ops.convert_to_numpy(one) for one in found] for path, found in self._other_variables().items()
        }
        if self._model.optimizer is not self._optimizer:
            lost["optimizer"] = "compile() was called while training: give the fit that follows a directory of its own"
        if self._of_data.intersection(id(private.variables.backing(one)) for one in self._known()):
            lost["data (shared with the model)"] = (
                "the data's functions change variables that the model changes as well, in whatever order their threads "
                "come: give each a layer of its own"
            )
        found = {
            "attributes": attributes,
            "settings": settings,
            "traced": self._traced.settings,
            "monitored": [name for name, one in self._callbacks.items() if private.fits.has_monitor(one)],
            "variables": variables,
            "generators": random_state.capture_generators(self._holders(), private.models.is_computing),
        }
        return found, missing | lost | self._traced.missing()

    def put_back(self, saved: Mapping[str, Any]) -> None:
        """Make everything what it was: the n-th callback of a class gets that of the n-th of that class."""
        for name in saved["monitored"]:
            if name in self._callbacks:
                private.fits.prepare_monitor(self._callbacks[name])
        left = self._attributes.put_back(saved["attributes"])
        self._known.look()
        self._traced.inherit(saved["traced"], saved["settings"])
        left += self._settings.put_back(saved["settings"])
        left += self._put_back_generators(saved["generators"])
        variables = self._other_variables()
        for path, values in saved["variables"].items():
            if [value.shape for value in values] != [tuple(one.shape) for one in variables.get(path, [])]:
                left.append(path)
                continue
            for variable, value in zip(variables[path], values, strict=True):
                variable.assign(value)
        for path in left:
            warn(f"{path} was in the snapshot, and has no place in the objects of this run: left as it is")

    def remember_attributes(self, saved: Mapping[str, Any]) -> Callable[[], None]:
        """Give what brings back the settings in attributes that are now where ``saved`` would be put back."""
        places = joined([saved["settings"], *saved["traced"].values()])
        return self._settings.remember({**places, "trainable": {}})

    def epoch_ends(self) -> None:
        """An epoch is over, with its validation."""
        self._traced.epoch_ends()

    def about_to_run(self, function: str) -> None:
        """``train_function`` or ``test_function`` of the model is about to be called."""
        self._traced.about_to_run(function)

    def _other_variables(self) -> dict[str, list[Any]]:
        """Variables that callbacks, global names and loss functions hold and the model does not."""
        known = {*map(id, self._known()), *self._of_data}
        found = {
            f"{path}.{name}": variables
            for path, callback in self._callbacks.items()
            for name, variables in private.variables.variables_in(callback).items()
            if name not in _NOT_STATE
        }
        found |= {
            f"{module}.{name}": [value]
            for module, names in scripts.namespaces().items()
            for name, value in list(names.items())
            if is_variable(value)
        }
        for number, function in enumerate(private.models.functions_of(self._model)):
            held = random_state.walk(function, private.models.is_computing)
            found |= {f"losses[{number}]{path}": [value] for path, value in held if is_variable(value)}
        return {
            path: variables
            for path, variables in found.items()
            if not all(id(one) in known or id(private.variables.backing(one)) in known for one in variables)
        }

    def _holders(self) -> dict[str, dict[str, Any]]:
        """The attributes that may hold random generators, by the objects' names. What a compiled step drew from such
        it drew while it was traced."""
        callbacks = {
            path: {name: value for name, value in vars(one).items() if name not in _NOT_STATE}
            for path, one in self._callbacks.items()
        }
        return callbacks | (self._settings.of_users() if private.models.runs_eagerly(self._model) else {})

    def _put_back_generators(self, saved: Mapping[str, Any]) -> list[str]:
        holders = self._holders()
        left = random_state.restore_generators(holders, saved, private.models.is_computing)
        for path, one in (self._callbacks | self._settings.parts).items():
            now = holders.get(path, {})
            vars(one).update({name: value for name, value in now.items() if vars(one).get(name) is not value})
        return left


def _named(callbacks: Any) -> dict[str, Any]:
    seen: Counter[str] = Counter()
    named = {}
    for callback in callbacks:
        kind = type(callback).__name__
        named[f"callbacks.{kind}[{seen[kind]}]"] = callback
        seen[kind] += 1
    return named
