"""The settings of what computes: attributes of layers, losses, metrics and optimizers, and what is trainable.

A compiled step reads them only while it is traced, so it has what they were then: `Traced` brings that back for the
first steps of a resumed process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ckpt_callbacks.keras import private
from ckpt_callbacks.keras.sources import same
from ckpt_callbacks.state.objects.attributes import Attributes, Saved

__all__ = ["Known", "Settings", "Traced", "joined"]


class Settings:
    """Attributes of what computes: layers, losses, metrics, optimizers; and what of it is trainable.

    Args:
        model: before training.
        known: what is saved elsewhere.
    """

    def __init__(self, model: Any, known: Known) -> None:
        self._model = model
        self.parts = private.models.parts_that_compute(model)
        self._attributes = Attributes(self.parts, self._counts, known)
        self._trainable = self._flags()

    def capture(self) -> tuple[dict[str, Any], dict[str, str]]:
        """What changed, and what of it can't be stored -> why."""
        attributes, missing = self._attributes.capture()
        changed = {name: flag for name, flag in self._flags().items() if self._trainable.get(name) is not flag}
        return {"attributes": attributes, "trainable": changed}, missing

    def put_back(self, saved: Mapping[str, Any]) -> list[str]:
        """Set what ``capture`` found; give the paths of what has no place any more."""
        private.models.set_trainable(self._model, saved["trainable"])
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
            private.models.set_trainable(self._model, {name: flags[name] for name in saved["trainable"]})
            attributes()

        return undo

    def of_users(self) -> dict[str, dict[str, Any]]:
        """The attributes of parts whose classes are users' own."""
        return {
            path: {name: value for name, value in vars(one).items() if self._counts(one, name)}
            for path, one in self.parts.items()
            if not private.models.is_keras_own(type(one))
        }

    def _flags(self) -> dict[str, bool]:
        return private.models.trainable(self._model)

    def _counts(self, holder: Any, name: str) -> bool:
        kind: Any = type(holder)
        if name in private.models.own_attributes(kind) or (private.models.is_keras_own(kind) and name.startswith("_")):
            return private.models.is_setting(holder, name)
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
        if private.models.runs_eagerly(self._model):
            return
        self._inherited = dict(traced)
        self._functions = {name: private.models.function_of(self._model, name) for name in traced}
        places = joined([settings, *traced.values()])
        self._began = self._live.copies(places)

    def about_to_run(self, name: str) -> None:
        """A function is about to be called: the first time, it is traced."""
        function = private.models.function_of(self._model, name)
        if private.models.runs_eagerly(self._model) or function is None:
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
            kept.append(self._live.remember(joined([self._began, then])))
            self._live.put_back(self._began)
            self._live.put_back(then)

        def after() -> None:
            kept.pop()()
            if not private.models.traces_each_shape():
                end()

        end = private.models.surround(self._model, name, before, after)
        self._ends += [lambda: None, end]

    def missing(self) -> dict[str, str]:
        """What no resume brings back -> why, and the remedy."""
        for name, function in self._functions.items():
            if name not in self._draws and private.models.is_traced(function):
                self._draws[name] = private.models.draws_by_kernels(function)
        if not any(self._draws.values()):
            return {}
        return {
            "random state of TensorFlow's ops": "the model calls tf.random or tf.nn.dropout, whose state nobody can "
            "read: use keras.random, keras.layers.Dropout or a tf.random.Generator"
        }


def joined(several: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
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
        of_optimizers = [one for optimizer in private.models.optimizers_of(model) for one in optimizer.variables]
        variables = [
            *model.variables,
            *of_optimizers,
            *model.metrics_variables,
            *private.variables.loose_variables(model),
        ]
        self._found = [*variables, model, *private.models.parts_that_compute(model).values(), *model.metrics]

    def __call__(self) -> list[Any]:
        """All of it, as it was when last looked at."""
        return self._found
