"""Every private attribute of Keras that this package touches (read from keras 3.15.1).

One function each: what it is, and what would break without it. A new Keras release is checked against this page.
"""

from __future__ import annotations

import functools
import sys
import threading
import types
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from ckpt_callbacks.errors import ResumeError
from ckpt_callbacks.state.kinds import is_variable
from ckpt_callbacks.state.pages import LARGE
from ckpt_callbacks.state.random_state import is_generator
from ckpt_callbacks.state.safetensors_file import ALIGNMENT
from ckpt_callbacks.state.scripts import assigned_by

__all__ = [
    "Running",
    "assign",
    "backing",
    "begin_at_epoch",
    "begin_iteration",
    "buffers_of",
    "build",
    "count_steps",
    "data_behind",
    "devices",
    "draw_index",
    "draws_by_kernels",
    "draws_in_parallel",
    "draws_indices",
    "evaluated",
    "function_of",
    "functions_of",
    "global_seed",
    "has_call",
    "has_monitor",
    "has_own_step",
    "has_workers",
    "hear_first",
    "is_computing",
    "is_in_fit",
    "is_keras_own",
    "is_plain_progress_bar",
    "is_python_generator",
    "is_setting",
    "is_traced",
    "iterate",
    "iterates_at_once",
    "kind_of_data",
    "layers_of",
    "length",
    "lives_on",
    "loads_ahead",
    "loose_variables",
    "make_evaluated",
    "make_global_seed",
    "optimizers_of",
    "own_attributes",
    "parts_of",
    "parts_that_compute",
    "prepare_monitor",
    "put_back_length",
    "py_dataset",
    "read",
    "replace_epochs",
    "replace_iterators",
    "replace_py_dataset",
    "running_fit",
    "runs_eagerly",
    "runs_generators",
    "runs_python_out_of_order",
    "serves_many_epochs",
    "set_trainable",
    "share_a_shuffling",
    "shuffles_within",
    "surround",
    "traces_each_shape",
    "trainable",
    "trained_by",
    "unbuildable",
    "unbuilt",
    "variables_behind",
    "variables_in",
    "workers_are_orderly",
]


@dataclass(frozen=True)
class Running:
    """The parts of a running `model.fit` that no public name reaches."""

    epoch_iterator: Any
    callback_list: Any
    validation: Mapping[str, Any]

    @property
    def callbacks(self) -> list[Any]:
        """All callbacks of the fit, in order."""
        return list(self.callback_list.callbacks)


def running_fit() -> Running:
    """The local variables ``epoch_iterator``, ``callbacks`` and those of validation in the `fit` that calls its
    callbacks.

    They are in no attribute. Without the first, the data's position can't be restored; without the second, the state
    of EarlyStopping and its like; without the third, what validation data remember.
    """
    frame = sys._getframe(1)
    while frame is not None:
        names = frame.f_locals
        if "epoch_iterator" in names and hasattr(names.get("callbacks"), "callbacks"):
            return Running(names["epoch_iterator"], names["callbacks"], _validation_in(names))
        frame = frame.f_back  # type: ignore[assignment]
    raise ResumeError(
        "this on_train_begin was not called by keras' model.fit: found no epoch_iterator among the callers. "
        f"Expected a Keras like 3.15 (found {keras.__version__}); custom loops are not supported yet."
    )


def _validation_in(names: Mapping[str, Any]) -> dict[str, Any]:
    """The local variables of fit that it makes the epoch iterator of validation with, as arguments for that."""
    return {
        "x": names.get("val_x"),
        "y": names.get("val_y"),
        "sample_weight": names.get("val_sample_weight"),
        "batch_size": names.get("validation_batch_size") or names.get("batch_size"),
        "steps_per_epoch": names.get("validation_steps"),
        "shuffle": False,
    }


def make_evaluated(model: Any, running: Running) -> None:
    """``model._eval_epoch_iterator``: made as fit would for its first validation, which then finds it.

    Making it loads batches on TensorFlow, of a `PyDataset` or a torch loader, and these may draw. A run that was never
    killed did so long ago: it must not be done once more between states that were put back.
    """
    kind, options = type(running.epoch_iterator), {"steps_per_execution": model.steps_per_execution}
    if iterates_at_once(running.epoch_iterator):
        options["distribute_strategy"] = model.distribute_strategy
    model._eval_epoch_iterator = kind(**running.validation, **options)


def presence(epoch_iterator: Any) -> Callable[[], bool]:
    """Tells, from any thread, whether the `fit` with this local variable, among our callers now, still runs.

    Keras tells callbacks nothing of an exception, and whoever keeps its traceback keeps fit's local variables.
    """
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_locals.get("epoch_iterator") is not epoch_iterator:
        frame = frame.f_back
    number, code, thread = id(frame), frame and frame.f_code, threading.get_ident()

    def is_present() -> bool:
        found = sys._current_frames().get(thread)
        while found is not None and not (id(found) == number and found.f_code is code):
            found = found.f_back
        return found is not None

    return is_present


def is_in_fit(frame: types.FrameType | None, epoch_iterator: Any) -> bool:
    """Whether the `fit` with this local variable is among the callers of a frame: whether it is still there."""
    while frame is not None:
        if epoch_iterator is not None and frame.f_locals.get("epoch_iterator") is epoch_iterator:
            return True
        frame = frame.f_back
    return False


def hear_first(
    running: Running, on_epoch_begin: Callable[[int, Any], None], on_train_end: Callable[[Any], None]
) -> None:
    """``CallbackList.callbacks``: let what begins and ends be heard before every callback of the user's hears it.

    A snapshot from between two epochs must be back before LearningRateScheduler and its like act on the new epoch,
    and the last one be taken before EarlyStopping puts other weights in,
    wherever our callback stands among them.
    The list is replaced, not changed: fit is walking along it right now.
    """
    first = keras.callbacks.LambdaCallback(on_epoch_begin=on_epoch_begin, on_train_end=on_train_end)
    running.callback_list.callbacks = [first, *running.callback_list.callbacks]


def replace_epochs(epoch_iterator: Any, wrap: Callable[[Callable[[], Iterator[Any]]], Iterator[Any]]) -> None:
    """``EpochIterator._enumerate_iterator``: the generator behind each epoch, of (first step, last step, iterator).

    Without it, batches that were trained on can't be passed over before the first hook of a resumed epoch.
    """
    kind, alive = type(epoch_iterator), weakref.ref(epoch_iterator)
    epoch_iterator._enumerate_iterator = lambda: wrap(lambda: kind._enumerate_iterator(alive()))


def replace_iterators(epoch_iterator: Any, wrap: Callable[[Callable[[], Any]], Any]) -> None:
    """``EpochIterator._get_iterator``: called, and iterated at once, whenever a new iterator over the data is made.

    It is the instant whose random state fixes the order, and there is no hook at it.
    """
    kind, alive = type(epoch_iterator), weakref.ref(epoch_iterator)
    epoch_iterator._get_iterator = lambda: wrap(lambda: kind._get_iterator(alive()))


def count_steps(epoch_iterator: Any, steps: int) -> None:
    """``EpochIterator._steps_seen``: how much of its iterator is used up, by which it knows when to make a new one."""
    epoch_iterator._steps_seen += steps


def kind_of_data(epoch_iterator: Any) -> str:
    """``EpochIterator.data_adapter``: what the data is, by the class that Keras chose for it (`ArrayDataAdapter`)."""
    return type(epoch_iterator.data_adapter).__name__


def begin_iteration(epoch_iterator: Any) -> None:
    """``TFEpochIterator._distributed_dataset``, ``TFDatasetAdapter._dataset``: iterate the data once, and draw nothing.

    A shuffled `tf.data.Dataset` takes another seed each time it is iterated; there is no way to set its count.
    """
    dataset = getattr(epoch_iterator, "_distributed_dataset", None)
    if dataset is None:
        dataset = epoch_iterator.data_adapter._dataset
    iter(dataset)


def iterate(data: Any, times: int) -> None:
    """The same for a `tf.data.Dataset` that was passed to fit; other data don't remember how often they were."""
    if hasattr(data, "element_spec"):
        for _ in range(times):
            iter(data)


def iterates_at_once(epoch_iterator: Any) -> bool:
    """Whether making an iterator iterates the `tf.data.Dataset` (TensorFlow); else its first fetch does."""
    return hasattr(epoch_iterator, "_distributed_dataset")


def serves_many_epochs(epoch_iterator: Any) -> bool:
    """``EpochIterator.steps_per_epoch``: with it an iterator is used until the data end, over several epochs."""
    return epoch_iterator.steps_per_epoch is not None


def lives_on(epoch_iterator: Any) -> bool:
    """``EpochIterator._current_iterator``: whether an iterator waits for the next epoch; without it, that epoch would
    begin the data anew when a finished fit is carried on with more epochs."""
    return serves_many_epochs(epoch_iterator) and epoch_iterator._current_iterator is not None


def loads_ahead(epoch_iterator: Any) -> bool:
    """Whether a thread of TensorFlow's loads batches before they are asked for: on TensorFlow every adapter gives fit a
    `tf.data.Dataset`, whose iterators load ahead even where no ``prefetch`` stands; elsewhere the user's own."""
    return iterates_at_once(epoch_iterator) or kind_of_data(epoch_iterator) == "TFDatasetAdapter"


def py_dataset(epoch_iterator: Any) -> Any:
    """``PyDatasetAdapter.py_dataset``: the user's data set, whose attributes are state; None for other data."""
    return getattr(epoch_iterator.data_adapter, "py_dataset", None)


def draws_indices(epoch_iterator: Any) -> bool:
    """Whether batches come, on the torch backend, from a torch `DataLoader` that loads by indices without workers.

    Keras reads arrays by such a loader of its own (``ArrayDataAdapter.get_torch_dataloader``); the user's is in
    ``TorchDataLoaderAdapter._dataloader``. Its sampler must be torch's: others may draw as they go.
    """
    if keras.backend.backend() != "torch":
        return False
    if kind_of_data(epoch_iterator) == "ArrayDataAdapter":
        return True
    from ckpt_callbacks._torch_data.private import by_index, knows_its_draws  # imports torch

    loader: Any = getattr(epoch_iterator.data_adapter, "_dataloader", None)
    return by_index(loader) and not loader.num_workers and knows_its_draws(loader)


def draw_index(iterator: Any) -> None:
    """Go on by a batch in an iterator of such a loader, without loading it."""
    from ckpt_callbacks._torch_data.private import pass_over  # imports torch

    pass_over(iterator)


def data_behind(epoch_iterator: Any) -> Any:
    """The user's data: ``PyDatasetAdapter.py_dataset``, ``TorchDataLoaderAdapter._dataloader``,
    ``TFDatasetAdapter._dataset``; None for others. Generators, orders and variables that they keep would begin anew in
    another process."""
    held = vars(epoch_iterator.data_adapter)
    return next((held[name] for name in ("py_dataset", "_dataloader", "_dataset") if name in held), None)


def parts_of(data: Any) -> dict[str, Any]:
    """The objects in a `PyDataset`, torch `DataLoader` or `tf.data.Dataset` that may remember; of other data, none."""
    if isinstance(data, keras.utils.PyDataset):
        return {"dataset": data}
    if _is_dataset(data):
        functions = [one._func for step in _steps_of(data) for one in step._functions() if hasattr(one, "_func")]
        return {f"functions[{number}]": one for number, one in enumerate(functions)}
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(data, torch.utils.data.DataLoader):
        return {}
    names = ("dataset", "sampler", "batch_sampler", "generator", "collate_fn")
    return {name: part for name in names if (part := getattr(data, name)) is not None}


def replace_py_dataset(epoch_iterator: Any, stand_in: Any) -> None:
    """``PyDatasetAdapter.py_dataset``: let batches be loaded, or passed over, by a stand-in; not where workers load."""
    if epoch_iterator.data_adapter.enqueuer is None:
        epoch_iterator.data_adapter.py_dataset = stand_in


def has_workers(epoch_iterator: Any) -> bool:
    """``PyDatasetAdapter.enqueuer``: whether worker threads or processes load the batches."""
    return getattr(epoch_iterator.data_adapter, "enqueuer", None) is not None


def workers_are_orderly() -> bool:
    """Whether no pass over data that threads load is broken off before fit begins.

    With torch and JAX ``_symbolic_build`` takes one batch. What workers of a `PyDataset` loaded beyond it stays in
    ``enqueuer.ready_queue``, from where the first epoch is served; threads of tf.data go on for a while.
    """
    return bool(keras.backend.backend() == "tensorflow")


def length(epoch_iterator: Any) -> int | None:
    """``EpochIterator._num_batches``: found out at the end of the first epoch, if the data doesn't tell it."""
    found: int | None = epoch_iterator._num_batches
    return found


def put_back_length(epoch_iterator: Any, batches: int | None) -> None:
    """Set what ``length`` gave; without it a resumed epoch ends, and iterates, in another way."""
    epoch_iterator._num_batches = batches


def evaluated(model: Any) -> Any:
    """``model._eval_epoch_iterator``: of the validation data, kept over a fit; None before the first validation."""
    return getattr(model, "_eval_epoch_iterator", None)


def variables_in(holder: Any) -> dict[str, list[Any]]:
    """The variables of metrics, seed generators, layers and optimizers in the attributes of an object, by attribute.

    Bare ones are attributes like others.
    """
    found = {}
    for name, value in vars(holder).items():
        parts = list(_leaves(value))
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
        for leaf in _leaves(held):
            variable = getattr(leaf, "state", None) if is_generator(leaf) else leaf
            if is_variable(variable) and id(variable) not in known:
                known.add(id(variable))
                found.append(variable)
    return found


def _leaves(value: Any, depth: int = 3) -> Iterator[Any]:
    """What lies in lists, tuples and the values of dicts (whose keys, in a layer's attributes, can't be sorted)."""
    if depth and isinstance(value, (list, tuple, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _leaves(item, depth - 1)
    else:
        yield value


def optimizers_of(model: Any) -> list[Any]:
    """The optimizer, and others in attributes of the model, as a custom ``train_step`` has them."""
    values = _leaves([model.optimizer, *vars(model).values()])
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


def begin_at_epoch(model: Any, epoch: int | None) -> None:
    """``model._initial_epoch``: where fit begins to count, read after on_train_begin (BackupAndRestore uses it too)."""
    model._initial_epoch = epoch


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


def global_seed() -> Any:
    """The state of the generator behind unseeded `keras.random` calls (``global_state``), or None if never used."""
    from keras.src.backend.common import global_state

    generator = global_state.get_global_attribute("global_seed_generator")
    return None if generator is None else generator.state


def make_global_seed() -> Any:
    """The same, made if need be: a resumed process may not have drawn an unseeded number yet."""
    from keras.src.random.seed_generator import global_seed_generator

    return global_seed_generator().state


def devices() -> dict[str, str]:
    """What bits depend on beside versions: the devices. All public; but with torch, `keras.distribution` knows none."""
    if keras.backend.backend() == "torch":
        import torch

        return {"devices": f"1 x {'cuda' if torch.cuda.is_available() else 'cpu'}"}
    found = [name.partition(":")[0].lower() for name in keras.distribution.list_devices()]
    return {"devices": ", ".join(f"{found.count(kind)} x {kind}" for kind in sorted(set(found)))}


def has_monitor(callback: Any) -> bool:
    """``MonitorCallback.monitor_op``: whether ``prepare_monitor`` was called for it."""
    return getattr(callback, "monitor_op", None) is not None


def prepare_monitor(callback: Any) -> None:
    """``MonitorCallback._set_monitor_op``: EarlyStopping and ReduceLROnPlateau call it at their first epoch's end.

    It flips the sign of ``min_delta``; called after their saved state is put back it would flip it twice.
    """
    if hasattr(callback, "_set_monitor_op") and callback.monitor_op is None:
        callback._set_monitor_op()


def is_plain_progress_bar(callback: Any) -> bool:
    """Whether this callback is Keras' own progress bar, which only draws."""
    return isinstance(callback, keras.callbacks.ProgbarLogger)


def layers_of(model: Any) -> list[Any]:
    """``Layer._flatten_layers``: the model and every layer within it."""
    return list(model._flatten_layers())


def parts_that_compute(model: Any) -> dict[str, Any]:
    """The layers of a model, the model first, its losses, metrics and optimizers, each by a name of its own."""
    layers = {f"layers[{number}] ({layer.name})": layer for number, layer in enumerate(layers_of(model))}
    losses = [one for one in _leaves(getattr(model, "loss", None)) if isinstance(one, keras.losses.Loss)]
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
    found = [one for one in _leaves([given, *model.metrics]) if isinstance(one, keras.metrics.Metric)]
    return list({id(one): one for one in found}.values())


def functions_of(model: Any) -> list[Any]:
    """What `compile` was given as loss, as far as it is functions."""
    return [one for one in _leaves(getattr(model, "loss", None)) if isinstance(one, types.FunctionType)]


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
        kind in _KERNEL_RANDOM
        for one in _traced_in(function)
        for concrete in one._list_all_concrete_functions()
        for kind in _operations_of(concrete)
    )


_KERNEL_RANDOM = {
    *("RandomUniform", "RandomUniformInt", "RandomStandardNormal", "TruncatedNormal", "RandomShuffle", "Multinomial"),
    *("ParameterizedTruncatedNormal", "RandomGamma", "RandomPoissonV2"),
}


def _traced_in(function: Any, depth: int = 4) -> Iterator[Any]:
    if hasattr(function, "_list_all_concrete_functions"):
        yield function
        function = getattr(function, "python_function", None)
    for cell in getattr(function, "__closure__", None) or () if depth else ():
        if callable(cell.cell_contents):
            yield from _traced_in(cell.cell_contents, depth - 1)


def runs_generators(data: Any) -> bool:
    """Whether data are a `tf.data.Dataset` that draws from a Python generator."""
    return any(kind == "GeneratorDataset" for function in _functions_in(data) for kind in _operations_of(function))


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


def variables_behind(data: Any) -> list[Any]:
    """The variables that the functions of a `tf.data.Dataset` change: the seed generators of augmentation layers, say.

    Each function has them among ``graph.captures`` and, by the same handle, in ``graph.variables``, which has no order.
    What is only read, such as the weights of a whole model, is left out.
    """
    found = {}
    for function in _functions_in(data):
        if not any(map(_changes_variables, _operations_of(function))):
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
        kind in _KERNEL_RANDOM or _changes_variables(kind)
        for function in _parallel_in(data)
        for kind in _operations_of(function)
    )


def runs_python_out_of_order(data: Any) -> bool:
    """The same of Python code, of which only its draws tell whether it draws; see also ``workers_are_orderly``."""
    functions = _parallel_in(data) if workers_are_orderly() else _functions_in(data)
    return any("PyFunc" in kind for function in functions for kind in _operations_of(function))


def _parallel_in(data: Any) -> Iterator[Any]:
    """The functions of steps with ``_num_parallel_calls``; TensorFlow runs these one by one if its ops shall be
    deterministic."""
    if not _is_dataset(data):
        return
    from tensorflow.python.framework.config import is_op_determinism_enabled

    for step in _steps_of(data):
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
    steps = _steps_of(data) if _is_dataset(data) else ()
    return any(_shufflings_in(one) for step in steps for one in _begun_later(step, endlessly))


def share_a_shuffling(one: Any, other: Any) -> bool:
    """Whether the same shuffling step stands in two `tf.data.Dataset`s: both take seeds from it."""
    return not set(map(id, _shufflings_in(one))).isdisjoint(map(id, _shufflings_in(other)))


def _shufflings_in(data: Any) -> list[Any]:
    """``_ShuffleDataset._reshuffle_each_iteration``: the steps that take new seeds whenever they are iterated."""
    steps = _steps_of(data) if _is_dataset(data) else ()
    return [step for step in steps if getattr(step, "_reshuffle_each_iteration", False)]


def _begun_later(step: Any, endlessly: bool) -> Sequence[Any]:
    """What a step of a dataset iterates when it has begun: ``_RepeatDataset._count``, ``_ConcatenateDataset``."""
    inputs: Sequence[Any] = step._inputs()
    if type(step).__name__ == "_RepeatDataset":
        count = int(step._count)
        return inputs if count > 1 or (endlessly and count < 0) else ()
    return inputs[1:] if type(step).__name__ == "_ConcatenateDataset" else ()


def _is_dataset(data: Any) -> bool:
    return hasattr(data, "_inputs") and hasattr(data, "_functions")


def _functions_in(data: Any) -> Iterator[Any]:
    """The functions of a `tf.data.Dataset` and all its steps, as they were traced: ``_functions``."""
    for step in _steps_of(data) if _is_dataset(data) else ():
        yield from (one.function for one in step._functions())


def _operations_of(function: Any) -> Iterator[str]:
    """The kinds of operations in a traced function and in those that it calls."""
    graph = function.graph.as_graph_def()
    for nodes in (graph.node, *(inner.node_def for inner in graph.library.function)):
        yield from (node.op for node in nodes)


def is_python_generator(data: Any) -> bool:
    """Whether Keras reads data by its ``GeneratorDataAdapter``: it asks for this type."""
    return isinstance(data, types.GeneratorType)


def _steps_of(dataset: Any) -> Iterator[Any]:
    """A `tf.data.Dataset` and those that it is made of: ``_inputs``."""
    yield dataset
    for one in dataset._inputs():
        yield from _steps_of(one)


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


def buffers_of(model: Any) -> dict[str, Any]:
    """Buffers of torch modules in a `TorchModuleWrapper` (running means, say): they are no Keras variables."""
    return dict(model.named_buffers()) if keras.backend.backend() == "torch" else {}
