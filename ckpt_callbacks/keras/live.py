"""What training changes outside of the model's variables: attributes of callbacks, layers, losses and the like.

Noted when training begins; what differs from that at a boundary is state. A compiled step reads attributes only while
it is traced, so it has what they were then: `Traced` brings that back for the first step of a resumed process.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from ckpt_callbacks.keras import private
from ckpt_callbacks.keras.sources import same
from ckpt_callbacks.messages import warn
from ckpt_callbacks.state import random_state, scripts
from ckpt_callbacks.state.attributes import Attributes, Saved
from ckpt_callbacks.state.kinds import is_variable

__all__ = ["Live"]

# What belongs to the running fit and not to a callback's own state.
_NOT_STATE = ("_model", "params", "validation_data")


class Live:
    """The live objects of a fit, and what their attributes were when it began.

    Args:
        current: gives the model being fitted, with the state of now in its variables.
        callbacks: all of fit's callbacks but ours, in order.
    """

    def __init__(self, current: Callable[[], Any], callbacks: Sequence[Any]) -> None:
        model = current()
        self._model, self._optimizer = model, model.optimizer
        self._callbacks = _named(one for one in callbacks if not private.is_plain_progress_bar(one))
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
        found = {
            "attributes": attributes,
            "settings": settings,
            "traced": self._traced.settings,
            "monitored": [name for name, one in self._callbacks.items() if private.has_monitor(one)],
            "variables": variables,
            "generators": random_state.capture_generators(self._holders(), private.is_computing),
        }
        return found, missing | lost | self._traced.missing()

    def put_back(self, saved: Mapping[str, Any]) -> None:
        """Make everything what it was: the n-th callback of a class gets that of the n-th of that class."""
        for name in saved["monitored"]:
            if name in self._callbacks:
                private.prepare_monitor(self._callbacks[name])
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

    def epoch_ends(self) -> None:
        """An epoch is over, with its validation."""
        self._traced.epoch_ends()

    def about_to_run(self, function: str) -> None:
        """``train_function`` or ``test_function`` of the model is about to be called."""
        self._traced.about_to_run(function)

    def _other_variables(self) -> dict[str, list[Any]]:
        """Variables that callbacks, global names and loss functions hold and the model does not."""
        known = set(map(id, self._known()))
        found = {
            f"{path}.{name}": variables
            for path, callback in self._callbacks.items()
            for name, variables in private.variables_in(callback).items()
            if name not in _NOT_STATE
        }
        found |= {
            f"{module}.{name}": [value]
            for module, names in scripts.namespaces().items()
            for name, value in list(names.items())
            if is_variable(value)
        }
        for number, function in enumerate(private.functions_of(self._model)):
            held = random_state.walk(function, private.is_computing)
            found |= {f"losses[{number}]{path}": [value] for path, value in held if is_variable(value)}
        return {path: variables for path, variables in found.items() if not known.issuperset(map(id, variables))}

    def _holders(self) -> dict[str, dict[str, Any]]:
        """The attributes that may hold random generators, by the objects' names. What a compiled step drew from such
        it drew while it was traced."""
        callbacks = {
            path: {name: value for name, value in vars(one).items() if name not in _NOT_STATE}
            for path, one in self._callbacks.items()
        }
        return callbacks | (self._settings.of_users() if private.runs_eagerly(self._model) else {})

    def _put_back_generators(self, saved: Mapping[str, Any]) -> list[str]:
        holders = self._holders()
        left = random_state.restore_generators(holders, saved, private.is_computing)
        for path, one in (self._callbacks | self._settings.parts).items():
            now = holders.get(path, {})
            vars(one).update({name: value for name, value in now.items() if vars(one).get(name) is not value})
        return left


class Settings:
    """Attributes of what computes: layers, losses, metrics, optimizers; and what of it is trainable.

    Args:
        model: before training.
        known: what is saved elsewhere.
    """

    def __init__(self, model: Any, known: Known) -> None:
        self._model = model
        self.parts = private.parts_that_compute(model)
        self._attributes = Attributes(self.parts, self._counts, known)
        self._trainable = self._flags()

    def capture(self) -> tuple[dict[str, Any], dict[str, str]]:
        """What changed, and what of it can't be stored -> why."""
        attributes, missing = self._attributes.capture()
        changed = {name: flag for name, flag in self._flags().items() if self._trainable.get(name) is not flag}
        return {"attributes": attributes, "trainable": changed}, missing

    def put_back(self, saved: Mapping[str, Any]) -> list[str]:
        """Set what ``capture`` found; give the paths of what has no place any more."""
        private.set_trainable(self._model, saved["trainable"])
        return self._attributes.put_back(saved["attributes"])

    def copies(self, saved: Mapping[str, Any]) -> dict[str, Any]:
        """What is now where ``saved`` would be put back, in the same form."""
        flags = self._flags()
        attributes: Saved = self._attributes.copies(saved["attributes"])
        return {"attributes": attributes, "trainable": {name: flags[name] for name in saved["trainable"]}}

    def remember(self, saved: Mapping[str, Any]) -> Callable[[], None]:
        """Give what brings back what is now where ``saved`` would be put back."""
        flags, attributes = self._flags(), self._attributes.remember(saved["attributes"])

        def undo() -> None:
            private.set_trainable(self._model, {name: flags[name] for name in saved["trainable"]})
            attributes()

        return undo

    def of_users(self) -> dict[str, dict[str, Any]]:
        """The attributes of parts whose classes are users' own."""
        return {
            path: {name: value for name, value in vars(one).items() if self._counts(one, name)}
            for path, one in self.parts.items()
            if not private.is_keras_own(type(one))
        }

    def _flags(self) -> dict[str, bool]:
        return private.trainable(self._model)

    def _counts(self, holder: Any, name: str) -> bool:
        kind: Any = type(holder)
        if name in private.own_attributes(kind) or (private.is_keras_own(kind) and name.startswith("_")):
            return private.is_setting(holder, name)
        return True


class Traced:
    """The settings that each compiled function was traced with, where they are not those of now.

    Args:
        current: gives the model whose functions they are, with the state of now in its variables.
        settings: of the model.
    """

    def __init__(self, current: Callable[[], Any], settings: Settings) -> None:
        self._current, self._model, self._live = current, current(), settings
        self._functions: dict[str, Any] = {}
        self._inherited: dict[str, Any] = {}
        self._began: dict[str, Any] = {}
        self._draws: dict[str, bool] = {}
        self._ends: list[Callable[[], None]] = []
        #: Of each function: what had changed when it was traced.
        self.settings: dict[str, Any] = {}

    def inherit(self, traced: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        """``settings`` are about to be put back; what these functions do next, they shall trace with those of then."""
        if private.runs_eagerly(self._model):
            return
        self._inherited = dict(traced)
        self._functions = {name: private.function_of(self._model, name) for name in traced}
        places = _joined([settings, *traced.values()])
        self._began = self._live.copies(places)

    def about_to_run(self, name: str) -> None:
        """A function is about to be called: the first time, it is traced."""
        function = private.function_of(self._model, name)
        if private.runs_eagerly(self._model) or function is None:
            return
        before = self._functions.get(name)
        inherited = self._inherited.pop(name, None) if before in (None, function) else None
        if inherited is None and function is before:
            return
        self._functions[name] = function
        self._draws.pop(name, None)
        self._current()
        now, _ = self._live.capture()
        self.settings[name] = now if inherited is None else inherited
        if inherited is not None and not same(inherited, now):
            self._run_as_then(name, inherited)

    def epoch_ends(self) -> None:
        """An epoch is over. In a whole one every shape of a batch was seen."""
        if self._ends:
            self._ends.pop(0)()

    def _run_as_then(self, name: str, then: Mapping[str, Any]) -> None:
        """Let a function find the settings of then while it is traced, and leave those of now."""
        kept: list[Callable[[], None]] = []

        def before() -> None:
            kept.append(self._live.remember(_joined([self._began, then])))
            self._live.put_back(self._began)
            self._live.put_back(then)

        def after() -> None:
            kept.pop()()
            if not private.traces_each_shape():
                end()

        end = private.surround(self._model, name, before, after)
        self._ends += [lambda: None, end]

    def missing(self) -> dict[str, str]:
        """What no resume brings back -> why, and the remedy."""
        for name, function in self._functions.items():
            if name not in self._draws and private.is_traced(function):
                self._draws[name] = private.draws_by_kernels(function)
        if not any(self._draws.values()):
            return {}
        return {
            "random state of TensorFlow's ops": "the model calls tf.random or tf.nn.dropout, whose state nobody can "
            "read: use keras.random, keras.layers.Dropout or a tf.random.Generator"
        }


def _joined(several: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All places of several settings."""
    return {
        "attributes": [one for saved in several for one in saved["attributes"]],
        "trainable": {name: flag for saved in several for name, flag in saved["trainable"].items()},
    }


class Known:
    """What is saved elsewhere: the variables of all that computes, and these things themselves.

    Args:
        model: all of it.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self.look()

    def look(self) -> None:
        """Look again: optimizers make theirs in the first step."""
        model = self._model
        of_optimizers = [one for optimizer in private.optimizers_of(model) for one in optimizer.variables]
        variables = [*model.variables, *of_optimizers, *model.metrics_variables, *private.loose_variables(model)]
        self._found = [*variables, model, *private.parts_that_compute(model).values(), *model.metrics]

    def __call__(self) -> list[Any]:
        return self._found


def _named(callbacks: Any) -> dict[str, Any]:
    seen: Counter[str] = Counter()
    named = {}
    for callback in callbacks:
        kind = type(callback).__name__
        named[f"callbacks.{kind}[{seen[kind]}]"] = callback
        seen[kind] += 1
    return named
