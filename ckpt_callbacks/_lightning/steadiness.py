"""Which tensors stay as they are from a boundary until an optimizer steps: they may be copied beside training.

Lightning's own loop changes parameters and moments in the optimizer's step alone, after `on_before_optimizer_step`.
What others change is seen from torch's count of changes, unless they go behind it. So these are the conditions, all in
one place, and each errs on the side of a copy that training waits for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from ckpt_callbacks._lightning import private
from ckpt_callbacks.state.scripts import mentions

__all__ = ["steady_tensors"]

WORTH_WAITING = 1 << 18
"""Below that many bytes a tensor is copied sooner than noted."""

# What code must say to reach the memory of a tensor uncounted, to give that memory away, or to step by itself.
_BEHIND = frozenset(
    {
        *("data", "data_ptr", "storage", "untyped_storage", "numpy", "__array__", "frombuffer", "set_", "resize_"),
        *("from_dlpack", "to_dlpack", "__dlpack__", "swap_tensors"),
        *("share_memory", "share_memory_", "multiprocessing", "step"),
    }
)
# Lightning's callbacks that leave parameters and moments alone.
_HARMLESS = (
    *("ModelCheckpoint", "OnExceptionCheckpoint", "EarlyStopping", "LearningRateMonitor", "DeviceStatsMonitor"),
    *("ModelSummary", "RichModelSummary", "TQDMProgressBar", "RichProgressBar", "Timer", "ThroughputMonitor"),
    *("GradientAccumulationScheduler", "Checkpoint", "ProgressBar", "Callback"),
)
_STEPS = ("optimizer_step", "optimizer_zero_grad", "backward", "configure_gradient_clipping", "lr_scheduler_step")


def steady_tensors(trainer: Any) -> dict[int, torch.Tensor]:
    """Address -> tensor, of the parameters and moments that are worth it; none at all if anything speaks against it."""
    if not all(condition(trainer) for condition in _CONDITIONS):
        return {}
    moments = [one for optimizer in trainer.optimizers for state in optimizer.state.values() for one in state.values()]
    return {one.data_ptr(): one for one in (*trainer.lightning_module.parameters(), *moments) if _is_plain(one)}


def _is_plain(value: Any) -> bool:
    """Whether it is a tensor in memory of this process alone, whose changes are counted."""
    return (
        type(value) in (torch.Tensor, torch.nn.Parameter)
        and value.layout is torch.strided
        and value.device.type == "cpu"
        and not value.is_inference()
        and not value.is_shared()
        and value.nbytes >= WORTH_WAITING
    )


def _on_one_cpu(trainer: Any) -> bool:
    return bool(trainer.strategy.root_device.type == "cpu" and trainer.world_size == 1)


def _steps_by_lightning(trainer: Any) -> bool:
    module = trainer.lightning_module
    return bool(module.automatic_optimization) and not any(private.is_overridden(module, name) for name in _STEPS)


def _optimizers_of_torch(trainer: Any) -> bool:
    return all(type(optimizer).__module__.startswith("torch.optim.") for optimizer in trainer.optimizers)


def _no_hooks(trainer: Any) -> bool:
    return not private.steps_or_hooks_of_users(trainer)


def _callbacks_known(trainer: Any) -> bool:
    """Those of Lightning's by name; of others the code is looked at, see below."""
    kinds = {kind for callback in trainer.callbacks for kind in type(callback).__mro__}
    packages = ("pytorch_lightning", "lightning")
    return all(kind.__name__ in _HARMLESS for kind in kinds if kind.__module__.partition(".")[0] in packages)


def _no_code_goes_behind(trainer: Any) -> bool:
    kinds = {kind for one in _actors(trainer) for kind in type(one).__mro__ if not _is_trusted(kind)}
    return not any(mentions(kind, _BEHIND, private.TRUSTED) for kind in kinds)


def _actors(trainer: Any) -> Iterator[Any]:
    """The objects whose code runs in a batch, and those that they hold."""
    module, own = trainer.lightning_module, [one for one in trainer.callbacks if not _is_trusted(type(one))]
    for one in (*module.modules(), *own, trainer.datamodule, trainer.strategy, trainer.precision_plugin):
        yield one
        for value in vars(one).values() if one is not None and not _is_trusted(type(one)) else ():
            yield from value if type(value) in (list, tuple) else value.values() if type(value) is dict else (value,)


def _is_trusted(kind: type) -> bool:
    return kind.__module__.partition(".")[0] in (*private.TRUSTED, "builtins", "abc", "typing", "collections")


_CONDITIONS = (
    *(_on_one_cpu, _steps_by_lightning, _optimizers_of_torch, _no_hooks),
    *(_callbacks_known, _no_code_goes_behind),
)
