"""A model, its layers, its functions, and what trains it."""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from ckpt_callbacks.keras.private.datasets import KERNEL_RANDOM, operations_of
from ckpt_callbacks.state.objects.scripts import assigned_by

__all__ = [
    "before_applying",
    "build",
    "draws_by_kernels",
    "frozen_variables",
    "function_of",
    "functions_of",
    "has_call",
    "has_own_step",
    "hooks_of",
    "is_computing",
    "is_keras_own",
    "is_setting",
    "is_traced",
    "layers_of",
    "leaves",
    "optimizers_of",
    "own_attributes",
    "parts_that_compute",
    "runs_eagerly",
    "set_trainable",
    "surround",
    "traces_each_shape",
    "trainable",
    "trained_by",
    "unbuildable",
    "unbuilt",
]


def leaves(value: Any, depth: int = 3) -> Iterator[Any]:
    """What lies in lists, tuples and the values of dicts (whose keys, in a layer's attributes, can't be sorted)."""
    if depth and isinstance(value, (list, tuple, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from leaves(item, depth - 1)
    else:
        yield value


def optimizers_of(model: Any) -> list[Any]:
    """The optimizer, and others in attributes of the model, as a custom ``train_step`` has them."""
    values = leaves([model.optimizer, *vars(model).values()])
    return list({id(value): value for value in values if isinstance(value, keras.optimizers.Optimizer)}.values())


def trained_by(optimizer: Any) -> list[Any]:
    """``Optimizer._trainable_variables``: what it was built for; empty if it has not been yet."""
    return list(optimizer._trainable_variables)


def before_applying(optimizers: Sequence[Any], fence: Callable[[], None]) -> Callable[[], None]:
    """Have ``fence`` called before an optimizer is about to change variables; give what ends that.

    ``Optimizer.apply`` is public, but Keras has no hook before it: each optimizer gets one of its own, in its
    ``__dict__``, past the tracking of ``__setattr__``.
    """

    def fenced(apply: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            fence()
            return apply(*args, **kwargs)

        return call

    for optimizer in optimizers:
        vars(optimizer)["apply"] = fenced(type(optimizer).apply.__get__(optimizer))

    def end() -> None:
        for optimizer in optimizers:
            vars(optimizer).pop("apply", None)

    return end


def build(model: Any, epoch_iterator: Any) -> None:
    """Create the variables of model and metrics as fit's first step would, without drawing a batch.

    TensorFlow creates them in the first training step, which is too late to assign to them. The shapes come from the
    dataset's ``element_spec`` (``epoch_iterator._distributed_dataset``); the other backends have built by now.
    """
    dataset = getattr(epoch_iterator, "_distributed_dataset", None)
    if dataset is None or not unbuilt(model):
        return
    if has_own_step(model) and not runs_eagerly(model):
        _trace_step(model, dataset.element_spec)
    else:
        _build_by_call(model, dataset.element_spec)


def unbuilt(model: Any) -> list[str]:
    """What a first step will build: ``Layer._flatten_layers``, ``model._compile_metrics``, ``model._compile_loss`` (it
    has a metric for each of several outputs). A model without a `call` of its own is never called, so never built
    itself."""
    layers = [layer.name for layer in layers_of(model) if not layer.built and (layer is not model or has_call(model))]
    compiled = {name: getattr(model, f"_compile_{name}", None) for name in ("metrics", "loss")}
    return layers + [name for name, one in compiled.items() if one is not None and not one.built]


def unbuildable(model: Any) -> dict[str, str]:
    """What ``build`` can't build, so that a resumed process could not put its variables back -> why, and the remedy."""
    if keras.backend.backend() != "tensorflow" or has_call(model) or not runs_eagerly(model):
        return {}
    return {
        f"variables of {name}": "they are made in the first step, which runs eagerly, and the model has no call(): "
        "build it before fit"
        for name in unbuilt(model)
    }


def has_own_step(model: Any) -> bool:
    """Whether `train_step` is a user's, and not that of Keras."""
    return not is_keras_own(_defining(type(model), "train_step"))


def has_call(model: Any) -> bool:
    """Whether a model's class or a base of it defines `call`: Keras' base classes have one that only raises."""
    return _defining(type(model), "call") not in (keras.Model, keras.Layer)


def _defining(kind: type, name: str) -> type:
    return next(base for base in kind.__mro__ if name in vars(base))


def _trace_step(model: Any, spec: Any) -> None:
    """``_autoconvert_optionals``: trace `train_step` as fit does. Tracing makes variables, and runs nothing.

    What `call` is given and which metrics are used, only a user's step knows; many models have no `call` at all.
    """
    import tensorflow as tf

    step = tf.autograph.experimental.do_not_convert(lambda data: model.train_step(data))
    tf.function(model._autoconvert_optionals(step)).get_concrete_function(spec)


def _build_by_call(model: Any, spec: Any) -> None:
    """``model._symbolic_build``: call the model and its metrics on symbols. The optimizer is kept from being built for
    all variables, for a custom ``train_step`` may use it for some."""
    optimizers = [one for one in (model.optimizer,) if one is not None and not one.built]
    for optimizer in optimizers:
        optimizer.built = True
    try:
        model._symbolic_build(data_batch=spec)
    finally:
        for optimizer in optimizers:
            optimizer.built = False


def layers_of(model: Any) -> list[Any]:
    """``Layer._flatten_layers``: the model and every layer within it."""
    return list(model._flatten_layers())


def parts_that_compute(model: Any) -> dict[str, Any]:
    """The layers of a model, the model first, its losses, metrics and optimizers, each by a name of its own."""
    layers = {f"layers[{number}] ({layer.name})": layer for number, layer in enumerate(layers_of(model))}
    losses = [one for one in leaves(getattr(model, "loss", None)) if isinstance(one, keras.losses.Loss)]
    metrics = {f"metrics[{number}] ({one.name})": one for number, one in enumerate(_metrics_of(model))}
    return {
        **layers,
        **{f"losses[{number}]": loss for number, loss in enumerate(losses)},
        **metrics,
        **{f"optimizers[{number}]": one for number, one in enumerate(optimizers_of(model))},
    }


def frozen_variables(model: Any) -> list[Any]:
    """The weights of layers that aren't trained; not the states of their random generators, which are integers."""
    return [
        variable
        for layer in layers_of(model)
        if not layer.trainable
        for variable in layer.variables
        if keras.backend.is_float_dtype(variable.dtype)
    ]


def _metrics_of(model: Any) -> list[Any]:
    """``model._compile_metrics``: what `compile` was given; `model.metrics` has these only once they are built."""
    given = getattr(getattr(model, "_compile_metrics", None), "_user_metrics", None)
    found = [one for one in leaves([given, *model.metrics]) if isinstance(one, keras.metrics.Metric)]
    return list({id(one): one for one in found}.values())


def functions_of(model: Any) -> list[Any]:
    """What `compile` was given as loss, as far as it is functions."""
    return [one for one in leaves(getattr(model, "loss", None)) if isinstance(one, types.FunctionType)]


_BOOKKEEPING = {"built", "stop_training", "stop_evaluating", "stop_predicting", "compiled"}


def is_setting(holder: Any, name: str) -> bool:
    """Whether an attribute that Keras set is one that a user may set as well: `Dropout.rate`, `optimizer.clipnorm`."""
    if name.startswith("_") or name in _BOOKKEEPING:
        return False
    return isinstance(vars(holder).get(name), bool | int | float | str | None)


def trainable(model: Any) -> dict[str, bool]:
    """What of a model is trainable: by the numbers of layers in ``_flatten_layers``, and of its variables."""
    layers = {f"layers[{number}]": bool(layer.trainable) for number, layer in enumerate(layers_of(model))}
    return layers | {f"variables[{number}]": bool(one.trainable) for number, one in enumerate(model.variables)}


def set_trainable(model: Any, flags: Mapping[str, bool]) -> None:
    """Set what ``trainable`` gave: outer layers first, for these set the flags of inner ones, and all of variables."""
    wanted = trainable(model) | dict(flags)
    for name, one in [*_numbered("layers", layers_of(model)), *_numbered("variables", model.variables)]:
        if bool(one.trainable) is not wanted[name]:
            one.trainable = wanted[name]


def _numbered(what: str, items: Sequence[Any]) -> list[tuple[str, Any]]:
    return [(f"{what}[{number}]", one) for number, one in enumerate(items)]


def function_of(model: Any, name: str) -> Any:
    """``model.train_function`` or ``model.test_function``, without what ``surround`` put around it; None if unmade."""
    function = getattr(model, name, None)
    return function.inner if isinstance(function, _Surrounded) else function


def surround(model: Any, name: str, before: Callable[[], Any], after: Callable[[], Any]) -> Callable[[], None]:
    """Run something before and after each call of such a function; give what ends that."""
    surrounded = _Surrounded(getattr(model, name), before, after)
    setattr(model, name, surrounded)

    def end() -> None:
        if getattr(model, name, None) is surrounded:
            setattr(model, name, surrounded.inner)

    return end


@dataclass(frozen=True)
class _Surrounded:
    inner: Callable[..., Any]
    before: Callable[[], Any]
    after: Callable[[], Any]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.before()
        try:
            return self.inner(*args, **kwargs)
        finally:
            self.after()


def traces_each_shape() -> bool:
    """Whether a step is traced for each shape of a batch (an epoch's last may be smaller). TensorFlow traces once."""
    return bool(keras.backend.backend() == "jax")


def is_traced(function: Any) -> bool:
    """Whether TensorFlow has traced a function by now, see ``draws_by_kernels``."""
    return any(one._list_all_concrete_functions() for one in _traced_in(function))


def is_computing(value: object) -> bool:
    """Whether a value is a layer, a metric or an optimizer: these lead to all of a model and its framework."""
    return isinstance(value, keras.Layer | keras.metrics.Metric | keras.optimizers.Optimizer)


def draws_by_kernels(function: Any) -> bool:
    """Whether a traced function of TensorFlow has ops whose random state nobody can read: `tf.random.normal`,
    `tf.nn.dropout`. The ``tf.function`` is in the closures of what Keras makes of it."""
    return any(
        kind in KERNEL_RANDOM
        for one in _traced_in(function)
        for concrete in one._list_all_concrete_functions()
        for kind in operations_of(concrete)
    )


def _traced_in(function: Any, depth: int = 4) -> Iterator[Any]:
    if hasattr(function, "_list_all_concrete_functions"):
        yield function
        function = getattr(function, "python_function", None)
    for cell in getattr(function, "__closure__", None) or () if depth else ():
        if callable(cell.cell_contents):
            yield from _traced_in(cell.cell_contents, depth - 1)


def runs_eagerly(model: Any) -> bool:
    """Whether a step's Python code runs in each step, and not only when it is traced."""
    return bool(keras.backend.backend() == "torch" or model.run_eagerly)


def is_keras_own(kind: type) -> bool:
    """Whether a class is Keras' own, and not a user's."""
    return kind.__module__.partition(".")[0] == "keras"


@functools.cache
def own_attributes(kind: Any) -> frozenset[str]:
    """The attributes that Keras (and, on that backend, torch) sets in a model or layer of a user's class.

    Found in the code of its base classes, so that nothing is missed in another version.
    """
    names = {"history", *_attributes_of_modules(kind)}
    for base in kind.__mro__:
        if base.__module__.partition(".")[0] in ("keras", "torch"):
            names |= assigned_by(base)
    return frozenset(names)


def _attributes_of_modules(kind: type) -> list[str]:
    torch = sys.modules.get("torch")
    return list(vars(torch.nn.Module())) if torch is not None and issubclass(kind, torch.nn.Module) else []


def hooks_of(model: Any) -> list[Any]:
    """Functions that users registered with torch to be called in a pass (``_forward_hooks`` and the like)."""
    names = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
    return [hook for one in model.modules() for name in names for hook in vars(one)[name].values()]
