"""Every private attribute of Lightning that this package touches (read from pytorch-lightning 2.6.6).

One function each: what it is, and what would break without it. A new Lightning release is checked against this page.
"""

from __future__ import annotations

import copy
import functools
import importlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch

from ckpt_callbacks.resume import Placing
from ckpt_callbacks.state.objects.kinds import has_variables
from ckpt_callbacks.state.objects.scripts import assigned_by, is_script, mentions

__all__ = [
    "asked_in_epoch",
    "counts",
    "counts_of_callback",
    "dump_checkpoint",
    "epoch_metrics",
    "go_on_from",
    "hands_out_iterator",
    "hold_back",
    "intercept_end",
    "intercept_failure",
    "intercept_first_epoch",
    "intercept_loaders",
    "intercept_restoring",
    "intercept_resume",
    "interrupted_between",
    "is_metric",
    "is_overridden",
    "loader_trusted",
    "loaders_of",
    "loops_state",
    "lottery_state",
    "make_validation_loaders",
    "metric_states",
    "mode_of",
    "own_attributes",
    "package_of",
    "prefetches",
    "put_back_asked_in_epoch",
    "put_back_epoch_metrics",
    "put_back_loops",
    "put_back_lottery",
    "put_back_metric_states",
    "put_back_metrics",
    "put_back_optimizers",
    "put_back_swa",
    "put_back_validation_state",
    "release",
    "swa_state",
    "validation_loaders",
    "validation_state",
]


def package_of(trainer: Any) -> str:
    """The package that the trainer comes from: ``pytorch_lightning`` or ``lightning.pytorch``.

    Not private, but a fact about the code base: both packages hold the same modules under these two roots.
    """
    for kind in type(trainer).__mro__:
        if kind.__module__.endswith("trainer.trainer") and kind.__name__ == "Trainer":
            return kind.__module__.removesuffix(".trainer.trainer")
    return type(trainer).__module__


def dump_checkpoint(trainer: Any) -> dict[str, Any]:
    """``trainer._checkpoint_connector.dump_checkpoint``: what Lightning itself would save, the user's hooks included.

    The public `Trainer.save_checkpoint` gives the same dictionary only as a pickle on disk.
    """
    dumped: dict[str, Any] = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
    return dumped


def intercept_resume(trainer: Any, choose: Callable[[Any], Any], placing: Placing) -> None:
    """``_checkpoint_connector.resume_start``: where `Trainer.fit` reads a checkpoint, before anything is restored.

    ``choose`` gets the path that the user passed (or None) and gives the one to load; ``placing`` tells of which
    snapshot an error is. Without it, auto-resume would need ``ckpt_path=`` in the user's script.
    """
    connector = trainer._checkpoint_connector
    original = type(connector).resume_start

    def resume_start(checkpoint_path: Any = None, weights_only: bool | None = None) -> None:
        path = choose(checkpoint_path)
        with placing():
            original(connector, path, weights_only=weights_only)

    connector.resume_start = resume_start


def intercept_restoring(trainer: Any, placing: Placing) -> None:
    """``_checkpoint_connector.restore_model`` and three more: what `Trainer.fit` puts back itself, each once.

    Without it, an error of theirs would not say of which snapshot it speaks.
    """
    connector = trainer._checkpoint_connector
    for name in ("restore_model", "restore_datamodule", "restore_callbacks", "restore_training_state"):

        def restore(name: str = name) -> None:
            delattr(connector, name)  # from now on it is the connector's own
            with placing():
                getattr(connector, name)()

        setattr(connector, name, restore)


def intercept_loaders(trainer: Any, train: _Wrap, validation: _Wrap) -> None:
    """``fit_loop._data_source.dataloader`` and that of ``val_loop``: the one call that asks the user for loaders.

    The wraps get that call. `FitLoop.setup_data` starts iterating right after it, with no hook between: there is no
    later place to record the random state that the first epoch's order comes from.
    """
    for source, wrap in zip(_data_sources(trainer), (train, validation), strict=True):
        original = functools.partial(type(source).dataloader, source)
        source.dataloader = functools.partial(wrap, original)


_Wrap = Callable[[Callable[[], Any]], Any]


def _data_sources(trainer: Any) -> tuple[Any, Any]:
    return trainer.fit_loop._data_source, trainer.fit_loop.epoch_loop.val_loop._data_source


def intercept_first_epoch(trainer: Any, before: Callable[[], None]) -> None:
    """``fit_loop.on_advance_start``: what the loop does first in an epoch. ``before`` runs before the first one.

    It is the one instant after every `on_train_start` (the module's own is the last) and before anything of an epoch.
    """
    loop = trainer.fit_loop

    def on_advance_start() -> None:
        del loop.on_advance_start
        before()
        loop.on_advance_start()

    loop.on_advance_start = on_advance_start


def intercept_failure(trainer: Any, failed: Callable[[BaseException], None]) -> None:
    """``Trainer._run_stage``, in which training runs. ``failed`` is told of what it raises.

    `on_exception` is not called if that of another callback raises; then the run would stay locked, and signals noted.
    """

    def run_stage() -> Any:
        del trainer._run_stage
        try:
            return trainer._run_stage()
        except BaseException as error:
            failed(error)
            raise

    trainer._run_stage = run_stage


def intercept_end(trainer: Any, before: Callable[[], None]) -> None:
    """``fit_loop.on_run_end``, which calls every `on_train_end`. ``before`` runs first.

    Callbacks may change the weights there (averaging, the best ones put back), which is no state to go on from, nor the
    one that metrics were measured on.
    """
    loop = trainer.fit_loop

    def on_run_end() -> None:
        del loop.on_run_end
        before()
        loop.on_run_end()

    loop.on_run_end = on_run_end


@contextmanager
def loader_trusted() -> Iterator[None]:
    """Silence one warning of `TrainingEpochLoop.reset`: that the dataloader is not resumable. It is, by replay."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="You're resuming from a checkpoint that ended before the epoch ended")
        yield


def release(trainer: Any) -> None:
    """Undo all interceptions."""
    vars(trainer._checkpoint_connector).pop("resume_start", None)
    vars(trainer.fit_loop).pop("on_advance_start", None)
    vars(trainer.fit_loop).pop("on_run_end", None)
    vars(trainer).pop("_run_stage", None)
    for source in _data_sources(trainer):
        vars(source).pop("dataloader", None)


def hold_back(loader: Any, sources: Sequence[Any]) -> None:
    """Give a `CombinedLoader` its iterator unstarted (``_iterator``, ``_mode``, ``_limits``, ``_SUPPORTED_MODES``).

    It is what `CombinedLoader.__iter__` makes, but over ``sources`` in the loaders' place. It answers ``len()``, which
    Lightning asks for when fit is set up; starting it there would start workers and draw random numbers that a resumed
    epoch must not see.
    """
    modes = importlib.import_module(type(loader).__mro__[1].__module__)._SUPPORTED_MODES
    loader._iterator = modes[loader._mode]["iterator"](list(sources), loader._limits)


def go_on_from(loader: Any, batches: int) -> None:
    """Let the iterator that ``hold_back`` made go on after some batches, with its sources in their places.

    ``iterators`` and ``_idx`` are of every mode, ``_consumed`` is of "max_size_cycle": which loaders came to their end,
    and thus began again. (Lightning's fit refuses the mode "sequential".)
    """
    iterator = loader._iterator
    iterator.iterators = list(iterator.iterables)
    iterator._idx = batches
    if hasattr(iterator, "_consumed"):
        iterator._consumed = [source.ends > 0 for source in iterator.iterables]


def asked_in_epoch(trainer: Any) -> int:
    """The epoch in which the loaders came (``fit_loop._last_train_dl_reload_epoch``): reloads count from it."""
    return int(trainer.fit_loop._last_train_dl_reload_epoch)


def put_back_asked_in_epoch(trainer: Any, epoch: int) -> None:
    """Set what ``asked_in_epoch`` gave."""
    trainer.fit_loop._last_train_dl_reload_epoch = int(epoch)


def validation_loaders(trainer: Any) -> list[Any]:
    """The loaders of fit's validations (``val_loop._combined_loader``); empty before the first one."""
    loader = trainer.fit_loop.epoch_loop.val_loop._combined_loader
    return [] if loader is None else list(loader.flattened)


def make_validation_loaders(trainer: Any) -> None:
    """``val_loop.setup_data``: asks the user for them, again if a sanity check did (``_combined_loader``)."""
    loop = trainer.fit_loop.epoch_loop.val_loop
    loop._combined_loader = None
    loop.setup_data()


def validation_state(trainer: Any) -> dict[str, Any]:
    """``val_loop._last_val_dl_reload_epoch``: when its loaders were made; ``_seen_batches_per_dataloader``: the x-axis
    of what validation logs with ``on_step``. No ``state_dict`` has them."""
    loop = trainer.fit_loop.epoch_loop.val_loop
    return {"loaders_of_epoch": loop._last_val_dl_reload_epoch, "seen": dict(loop._seen_batches_per_dataloader)}


def put_back_validation_state(trainer: Any, saved: Mapping[str, Any]) -> None:
    """Set what ``validation_state`` gave."""
    loop = trainer.fit_loop.epoch_loop.val_loop
    loop._last_val_dl_reload_epoch = saved["loaders_of_epoch"]
    loop._seen_batches_per_dataloader.update(saved["seen"])


def mode_of(loader: Any) -> str:
    """How a `CombinedLoader` joins its loaders (``_mode``): it has no public name, and ours must do the same."""
    return str(loader._mode)


def loaders_of(trainer: Any) -> list[Any]:
    """The train loaders (``fit_loop._combined_loader``); `trainer.train_dataloader` loses those inside structures."""
    loader = trainer.fit_loop._combined_loader
    return [] if loader is None else list(loader.flattened)


def prefetches(trainer: Any) -> bool:
    """``fit_loop._data_fetcher``: whether Lightning fetches a batch ahead, as it does if the loader has no length."""
    fetcher = trainer.fit_loop._data_fetcher
    return fetcher is not None and fetcher.length is None and hasattr(fetcher, "batches")


def interrupted_between(exception: BaseException) -> Literal["between batches", "between epochs"] | None:
    """Where Lightning's own answer to SIGTERM was raised, if that is a place where nothing is half done.

    ``on_advance_end`` of the epoch loop raises `SIGTERMException` after a batch with its validation and schedulers,
    that of the fit loop after an epoch. Raised elsewhere (in a validation), the state is not one to carry on from.
    """
    trace = exception.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if type(exception).__name__ != "SIGTERMException" or trace is None:
        return None
    if trace.tb_frame.f_code.co_name != "on_advance_end":
        return None
    module = str(trace.tb_frame.f_globals["__name__"]).rpartition(".")[2]
    if module == "training_epoch_loop":
        return "between batches"
    return "between epochs" if module == "fit_loop" else None


def hands_out_iterator(trainer: Any) -> bool:
    """Whether `training_step` gets the loader's iterator and fetches for itself (``fit_loop._data_fetcher``)."""
    return type(trainer.fit_loop._data_fetcher).__name__ == "_DataLoaderIterDataFetcher"


def loops_state(trainer: Any) -> dict[str, Any]:
    """Progress of the fit loop and the loops below it, and ``epoch_loop._batches_that_stepped`` with it.

    The positions of stateful loaders (``combined_loader``) are left out: replay reaches them, also with workers.
    """
    state: dict[str, Any] = trainer.fit_loop.state_dict()
    state["state_dict"] = {key: value for key, value in state["state_dict"].items() if key != "combined_loader"}
    return state


def counts(trainer: Any, module: Any) -> tuple[int, int]:
    """`Trainer.global_step`, and the batches done since the run began (``epoch_loop.batch_progress.total.completed``;
    in `on_train_batch_end` the present one is none of them yet).

    Steps are read where `TrainingEpochLoop.global_step` reads them: ``optim_progress`` of the automatic,
    ``optim_step_progress`` of the manual optimization. By way of the properties it takes ten times as long.
    """
    loop = trainer.fit_loop.epoch_loop
    if module.automatic_optimization:
        steps = loop.automatic_optimization.optim_progress.optimizer.step
    else:
        steps = loop.manual_optimization.optim_step_progress
    return steps.total.completed, loop.batch_progress.total.completed


def put_back_loops(trainer: Any, state: Mapping[str, Any]) -> None:
    """Set every counter to what it was at the same place, and end the restart.

    `load_state_dict` also flags a restart (``_restarting``, ``_loaded_from_state_dict``,
    ``_resuming_from_checkpoint``); left set for the rest of the epoch, it keeps plateau schedulers from stepping at its
    end.
    """
    fit_loop = trainer.fit_loop
    fit_loop.load_state_dict(copy.deepcopy(dict(state)))
    inner = fit_loop.epoch_loop
    for loop in (fit_loop, inner, inner.val_loop, inner.automatic_optimization, inner.manual_optimization):
        loop._restarting = loop._loaded_from_state_dict = loop._resuming_from_checkpoint = False


_META = (
    *("fx", "name", "prog_bar", "logger", "on_step", "on_epoch", "enable_graph"),
    *("add_dataloader_idx", "dataloader_idx", "metric_attribute"),
)
_VALUES = ("value", "cumulated_batch_size", "_forward_cache", "_update_count")


def epoch_metrics(trainer: Any) -> dict[str, dict[str, Any]]:
    """The running reductions behind ``self.log(..., on_epoch=True)`` (``epoch_loop._results``), by their keys.

    Without them an epoch's mean after a mid-epoch resume covers only the batches since the resume.
    """
    return {
        key: {
            "meta": {name: getattr(metric.meta, name) for name in _META},
            "reduce": [metric.meta.reduce_fx.__module__.partition(".")[0], metric.meta.reduce_fx.__name__],
            "sync": {name: getattr(metric.meta.sync, name) for name in ("_should", "rank_zero_only", "_op")},
            "values": {name: getattr(metric, name) for name in _VALUES if hasattr(metric, name)},
        }
        for key, metric in trainer.fit_loop.epoch_loop._results.items()
        if metric.is_tensor and not metric.has_reset  # a torchmetrics object keeps its own state
    }


def put_back_epoch_metrics(trainer: Any, kept: Mapping[str, Mapping[str, Any]], batch: int) -> None:
    """Make the running reductions again as `_ResultCollection.log` would, with their saved values.

    ``_first_loop_iter`` False says that the epoch has begun before, so that Lightning doesn't reset them.
    """
    results = trainer.fit_loop.epoch_loop._results
    module = importlib.import_module(type(results).__module__)
    trainer._logger_connector._first_loop_iter = None if batch == 0 else False
    for key, saved in kept.items():
        package, name = saved["reduce"]
        reduce_fx = getattr(importlib.import_module("builtins" if package == "builtins" else "torch"), name)
        meta = module._Metadata(**saved["meta"], reduce_fx=reduce_fx)
        meta.sync = module._Sync(fn=trainer.strategy.reduce, **saved["sync"])
        metric = module._ResultMetric(meta, is_tensor=True)
        vars(metric).update(saved["values"])
        # An epoch's end resets to the defaults, which were made in the precision of the first log.
        metric._defaults.update(
            {name: like.to(metric.value.dtype) for name, like in metric._defaults.items() if name == "value"}
        )
        results[key] = metric.to(trainer.strategy.root_device)


def put_back_metrics(trainer: Any, metrics: Mapping[str, Mapping[str, Any]]) -> None:
    """``_logger_connector._callback_metrics`` and its two sisters: what EarlyStopping, plateau schedulers and monitors
    look at, and what `trainer.logged_metrics` and `progress_bar_metrics` show until something is logged again."""
    connector = trainer._logger_connector
    connector._callback_metrics.update(metrics["callback"])
    connector._logged_metrics.update(metrics["logged"])
    connector._progress_bar_metrics.update(metrics["progress_bar"])


def metric_states(trainer: Any) -> dict[str, dict[str, Any]]:
    """What torchmetrics objects in the module have summed up so far (``_defaults``, ``_update_count``).

    They are in no `state_dict` unless a metric was made persistent, so an epoch's metric would begin anew.
    """
    return {
        name: {
            "values": {state: getattr(module, state) for state in module._defaults},
            "updates": module._update_count,
        }
        for name, module in trainer.lightning_module.named_modules()
        if is_metric(module)
    }


def put_back_metric_states(trainer: Any, states: Mapping[str, Mapping[str, Any]]) -> None:
    """The inverse of `metric_states`; a metric that is new in the script keeps what it has."""
    device = trainer.strategy.root_device
    for name, module in trainer.lightning_module.named_modules():
        for state, value in states.get(name, {}).get("values", {}).items():
            setattr(module, state, [one.to(device) for one in value] if isinstance(value, list) else value.to(device))
        if name in states:
            module._update_count = states[name]["updates"]
            module._computed = None


def schedulers_of(trainer: Any) -> list[Any]:
    """What users' schedulers, and the functions of torch's (``lr_lambdas``), hold."""
    schedulers = [config.scheduler for config in trainer.lr_scheduler_configs]
    return [getattr(one, "lr_lambdas", None) if is_torchs(type(one)) else vars(one) for one in schedulers]


def hooks_of(module: Any) -> list[Any]:
    """The functions and objects that users registered as a module's hooks (``_forward_hooks`` and the like)."""
    names = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
    return [
        hook
        for name in names
        for hook in module.__dict__[name].values()
        if is_script(type(hook).__module__) or has_variables(hook)
    ]


def hooks_of_training(trainer: Any) -> list[Any]:
    """Functions and objects that run within an optimizer's step, or a forward or backward pass, and no class shows.

    Hooks of modules (as `hooks_of`, of any origin), of tensors (``_backward_hooks``, ``_post_accumulate_grad_hooks``),
    and of optimizers (``_optimizer_step_pre_hooks``, ``_optimizer_step_post_hooks``, and those of all optimizers).
    """
    module, shared = trainer.lightning_module, importlib.import_module("torch.optim.optimizer")
    of_modules = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
    of_tensors = ("_backward_hooks", "_post_accumulate_grad_hooks")
    of_optimizers = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")
    tables = [
        *(vars(one)[name] for one in module.modules() for name in of_modules),
        *(getattr(one, name, None) for one in module.parameters() for name in of_tensors),
        *(getattr(one, name, None) for one in trainer.optimizers for name in of_optimizers),
        *(shared._global_optimizer_pre_hooks, shared._global_optimizer_post_hooks),
    ]
    return [hook for table in tables for hook in (table or {}).values()]


def is_metric(module: Any) -> bool:
    """Whether a module is a torchmetrics object (``_defaults``, ``_update_count``): see `metric_states`."""
    return hasattr(module, "_defaults") and hasattr(module, "_update_count")


# Callbacks of Lightning's own that keep in attributes what their `state_dict` lacks: a model of their own, above all.
_KEPT_BY = {
    "WeightAveraging": ("_average_model", "_latest_update_step", "_latest_update_epoch"),
    "StochasticWeightAveraging": ("_average_model", "n_averaged", "_latest_update_epoch", "_swa_lrs"),
    "EarlyStopping": ("stopped_epoch",),
    "Trainer": (
        *("gradient_clip_val", "gradient_clip_algorithm", "check_val_every_n_epoch", "val_check_batch"),
        *("val_check_interval", "limit_val_batches"),
    ),
}


def counts_of_callback(callback: Any, name: str) -> bool:
    """Whether an attribute of a callback (or of the trainer) may be state: the user's own may, in a subclass of
    Lightning's or set from outside, and of Lightning's own those of the table above."""
    kinds = [kind for kind in type(callback).__mro__ if kind.__module__.partition(".")[0] in _PACKAGES]
    if any(kind.__module__.partition(".")[0] == "ckpt_callbacks" for kind in kinds):
        return False
    if any(name in _KEPT_BY.get(kind.__name__, ()) for kind in kinds):
        return True
    return not any(kind.__name__ == "Trainer" or name in assigned_by(kind) for kind in kinds)


_PACKAGES = ("pytorch_lightning", "lightning", "ckpt_callbacks")

TRUSTED = ("torch", "torchmetrics", "numpy", "lightning_fabric", *_PACKAGES)
"""Packages whose code is known: it is not searched for what a user's may do."""


@functools.cache
def _bare(kind: type) -> frozenset[str]:
    return frozenset(vars(kind()))


def own_attributes(holder: Any, *, in_tree: bool) -> frozenset[str]:
    """The attributes of modules and data modules that are PyTorch's and Lightning's, not the user's.

    What a module holds by name is saved as weights if it is in the tree (``in_tree``); its mode (``training``) is not.
    What torchmetrics in the tree sums up (``_defaults``) has its own place, see `metric_states`.
    """
    kind: Any = type(holder)
    names = _own_attributes(kind, in_tree)
    return names | frozenset(holder._defaults) if in_tree and is_metric(holder) else names


@functools.cache
def _own_attributes(kind: type, in_tree: bool) -> frozenset[str]:
    names: frozenset[str] = frozenset()
    for base in kind.__mro__:
        package = base.__module__.partition(".")[0]
        if base.__name__ in ("LightningModule", "LightningDataModule") and package in _PACKAGES:
            names |= _bare(base) | {"_hparams", "_hparams_initial", "_hparams_name", "_compiler_ctx"}
        elif base.__module__ == "torch.nn.modules.module":
            names |= _bare(base)
        elif in_tree and base.__name__ == "Metric" and package == "torchmetrics":
            names |= assigned_by(base)
    return names - {"training"} - (frozenset() if in_tree else {"_parameters", "_buffers", "_modules"})


def put_back_optimizers(trainer: Any, loaded: Mapping[str, Any], schedulers: Sequence[Mapping[str, Any]]) -> None:
    """Load optimizers and schedulers once more, where the rest is put back: hooks may have changed learning rates.

    As ``_checkpoint_connector.restore_optimizers`` and ``restore_lr_schedulers`` do.

    Args:
        trainer: of the fit.
        loaded: what Lightning loaded from.
        schedulers: the same of schedulers as it was before: some take items out of what they load (`CyclicLR`).
    """
    trainer.strategy.load_optimizer_state_dict(loaded)
    for config, whole, saved in zip(trainer.lr_scheduler_configs, schedulers, loaded["lr_schedulers"], strict=False):
        config.scheduler.load_state_dict(copy.deepcopy({**whole, **saved}))


def _swa_of(trainer: Any) -> Any | None:
    named = "StochasticWeightAveraging"
    return next((one for one in trainer.callbacks if any(k.__name__ == named for k in type(one).__mro__)), None)


def replaces_schedulers(trainer: Any) -> bool:
    """Whether a callback of Lightning's does so, which is put back with its own state: see `swa_state`."""
    return _swa_of(trainer) is not None


def swa_state(trainer: Any) -> dict[str, Any] | None:
    """How far StochasticWeightAveraging is: it replaces the scheduler, and turns the last epoch into one without steps.

    Its own ``state_dict`` lacks ``_initialized``, ``momenta`` and what it does to the fit loop (``max_batches``,
    ``_skip_backward``); resumed from that it makes its scheduler anew, which is a step off.
    """
    swa = _swa_of(trainer)
    if swa is None or not swa._initialized:
        return None
    names = {module: name for name, module in trainer.lightning_module.named_modules()}
    return {
        "momenta": {names[module]: momentum for module, momentum in swa.momenta.items()},
        "skip_backward": trainer.fit_loop._skip_backward,
        "accumulate": getattr(swa, "_accumulate_grad_batches", None),
    }


def put_back_swa(trainer: Any, saved: Mapping[str, Any] | None) -> None:
    """Bring StochasticWeightAveraging to where it was. Its scheduler is loaded with the others, afterwards."""
    swa = _swa_of(trainer)
    if swa is None or saved is None:
        return
    optimizer = trainer.optimizers[0]
    if not swa._initialized:
        swa._initialized = True
        swa._average_model = swa._average_model.to(swa._device or trainer.lightning_module.device)
        if isinstance(swa._swa_lrs, float):
            swa._swa_lrs = [swa._swa_lrs] * len(optimizer.param_groups)
        for lr, group in zip(swa._swa_lrs, optimizer.param_groups, strict=False):
            group["initial_lr"] = lr
        made = torch.optim.swa_utils.SWALR(
            *(optimizer, swa._swa_lrs, swa._annealing_epochs, swa._annealing_strategy),
            last_epoch=trainer.max_epochs if swa._annealing_strategy == "cos" else -1,
        )
        module = importlib.import_module(f"{package_of(trainer)}.utilities.types")
        swa._swa_scheduler = made
        trainer.strategy.lr_scheduler_configs[:] = [module.LRSchedulerConfig(made)]
    modules = dict(trainer.lightning_module.named_modules())
    swa.momenta = {modules[name]: momentum for name, momentum in saved["momenta"].items()}
    if saved["skip_backward"] and not trainer.fit_loop._skip_backward:
        trainer.fit_loop._skip_backward = True
        trainer.fit_loop.max_batches += 1
    if saved["accumulate"] is not None:
        swa._accumulate_grad_batches = saved["accumulate"]


def is_overridden(holder: Any, method: str) -> bool:
    """Whether a method of the LightningModule, or of a callback, is the user's own."""
    return getattr(type(holder), method).__module__.partition(".")[0] not in _PACKAGES


def datamodule_with_state(trainer: Any) -> Any:
    """The data module, if the user wrote a state for it; else None."""
    datamodule = trainer.datamodule
    has = datamodule is not None and all(is_overridden(datamodule, one) for one in ("state_dict", "load_state_dict"))
    return datamodule if has else None


_GRADIENTS = frozenset({"grad", "grad_norm"})


def reads_gradients(holder: Any) -> bool:
    """Whether a module's or callback's own code may look at ``.grad`` between two steps."""
    hooks = ("on_before_zero_grad", "optimizer_zero_grad")
    kinds = tuple(kind for kind in type(holder).__mro__ if is_script(kind.__module__))
    overridden = any(hasattr(holder, hook) and is_overridden(holder, hook) for hook in hooks)
    return overridden or mentions(kinds, _GRADIENTS, TRUSTED)


def in_optimizers(trainer: Any) -> set[int]:
    """The ids of the parameters that optimizers have, and clear the gradients of."""
    groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
    return {id(parameter) for group in groups for parameter in group["params"]}


@functools.cache
def own_of_optimizers() -> frozenset[str]:
    """The attributes that any optimizer of torch has; its ``state_dict`` has what counts of them, hooks belong to the
    script, and schedulers and strategies replace its ``step``."""
    bare = torch.optim.Optimizer([torch.zeros(1)], {})
    return frozenset(vars(bare)) | {"step", "_opt_called", "_step_count", "_on_before_step", "_on_after_step"}


def is_torchs(kind: type) -> bool:
    """Whether a class is PyTorch's own."""
    return kind.__module__.partition(".")[0] == "torch"


def _lottery_tickets(trainer: Any) -> Iterator[tuple[Any, Any]]:
    """What ModelPruning (``_original_layers``, ``_parameters_to_prune``) resets, each with the value that it gets."""
    for callback in trainer.callbacks:
        for layer in (getattr(callback, "_original_layers", None) or {}).values():
            for index, name in layer["names"]:
                module = callback._parameters_to_prune[index][0]
                original = getattr(layer["data"], name)
                if original is not None:
                    yield getattr(module, f"{name}_orig", getattr(module, name)), original


def lottery_state(trainer: Any) -> list[dict[str, Any]]:
    """The first weights, to which ModelPruning returns with the lottery ticket hypothesis.

    Its reset lets the parameter share the memory of the first weights (``dst.data = src.data``), so that later ones
    have no effect: whether they share it is state, too.
    """
    return [
        {"value": original, "shared": original.data_ptr() == live.data_ptr()}
        for live, original in _lottery_tickets(trainer)
    ]


def put_back_lottery(trainer: Any, saved: Sequence[Mapping[str, Any]]) -> None:
    """The inverse of `lottery_state`."""
    for (live, original), one in zip(_lottery_tickets(trainer), saved, strict=False):
        original.data.copy_(one["value"])
        if one["shared"]:
            live.data = original.data.to(live.device)
