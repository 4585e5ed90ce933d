"""Which tensors stay as they are from a boundary until an optimizer steps: they may be copied beside training.

Training changes parameters and moments in an optimizer's step alone. In automatic optimization that comes after
`on_before_optimizer_step`; in manual optimization each optimizer tells before it steps (`Fences`). What others change
is seen from torch's count of changes, unless they go behind it: so the code that runs meanwhile is looked at. These are
the conditions, all in one place, and each errs on the side of a copy that training waits for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import torch

from ckpt_callbacks._lightning import private
from ckpt_callbacks.state.objects.uncounted import held_by, is_countable, is_trusted, may_go_uncounted

__all__ = ["Fences", "steady_tensors"]

# The methods that run from a boundary until the batch is done; others run if one of these names them. No boundary at
# which anything happened (a validation, an epoch's end) is copied late.
_RUNS = re.compile(
    r"training_step|forward|backward|setup_context|update|compute|(?!__init__)__\w+__|manual_backward"
    r"|on_train_batch_(start|end)|on_(before|after)_(zero_grad|backward|optimizer_step|batch_transfer)"
    r"|transfer_batch_to_device|configure_gradient_clipping|clip_gradients|optimizer_zero_grad|lr_scheduler_step"
)
# Lightning's callbacks that leave parameters and moments alone.
_HARMLESS = (
    *("ModelCheckpoint", "OnExceptionCheckpoint", "EarlyStopping", "LearningRateMonitor", "DeviceStatsMonitor"),
    *("ModelSummary", "RichModelSummary", "TQDMProgressBar", "RichProgressBar", "Timer", "ThroughputMonitor"),
    *("GradientAccumulationScheduler", "Checkpoint", "ProgressBar", "Callback"),
)


class Fences:
    """What tells before an optimizer steps, where the trainer does not: in manual optimization.

    Args:
        fence: called before a step.
    """

    def __init__(self, fence: Callable[[], None]) -> None:
        self._fence = fence
        self._handles: dict[int, tuple[torch.optim.Optimizer, Any]] = {}

    def put_up(self, trainer: Any) -> None:
        """Before each of the trainer's optimizers, as far as it is needed and not there yet."""
        for optimizer in () if trainer.lightning_module.automatic_optimization else trainer.optimizers:
            if id(optimizer) not in self._handles:
                handle = optimizer.register_step_pre_hook(self._before_step)
                self._handles[id(optimizer)] = optimizer, handle

    def take_down(self) -> None:
        """All of them."""
        for _, handle in self._handles.values():
            handle.remove()
        self._handles.clear()

    def _before_step(self, optimizer: object, args: object, kwargs: object) -> None:
        self._fence()


def steady_tensors(trainer: Any) -> dict[int, torch.Tensor]:
    """Address -> tensor, of the parameters and moments that are worth it; none at all if anything speaks against it."""
    moments = [one for optimizer in trainer.optimizers for state in optimizer.state.values() for one in state.values()]
    worth = [one for one in (*trainer.lightning_module.parameters(), *moments) if is_countable(one)]
    if not worth or not all(condition(trainer) for condition in _CONDITIONS):
        return {}
    return {one.data_ptr(): one for one in worth}


def _on_one_device(trainer: Any) -> bool:
    return bool(trainer.strategy.root_device.type in ("cpu", "cuda") and trainer.world_size == 1)


def _tells_before_it_steps(trainer: Any) -> bool:
    module = trainer.lightning_module
    return not (module.automatic_optimization and private.is_overridden(module, "optimizer_step"))


def _optimizers_of_torch(trainer: Any) -> bool:
    """They change what they have in their steps alone. Others that the module holds may step unseen."""
    known = {id(optimizer) for optimizer in trainer.optimizers}
    held = [one for actor in _actors(trainer) for one in (actor, *held_by(actor, private.TRUSTED))]
    return all(private.is_torchs(type(optimizer)) for optimizer in trainer.optimizers) and not any(
        isinstance(one, torch.optim.Optimizer) and id(one) not in known for one in held
    )


def _machinery_known(trainer: Any) -> bool:
    """Callbacks of Lightning's by name; of others the code is looked at, see below."""
    kinds = {kind for callback in trainer.callbacks for kind in type(callback).__mro__}
    packages = ("pytorch_lightning", "lightning")
    callbacks = all(kind.__name__ in _HARMLESS for kind in kinds if kind.__module__.partition(".")[0] in packages)
    return callbacks and all(
        is_trusted(type(one), private.TRUSTED) for one in (trainer.strategy, trainer.precision_plugin)
    )


def _no_code_goes_behind(trainer: Any) -> bool:
    return not may_go_uncounted(_actors(trainer), _RUNS, private.TRUSTED)


def _actors(trainer: Any) -> Iterator[Any]:
    """The objects and functions whose code runs in a batch. A data set has no model."""
    module, own = (
        trainer.lightning_module,
        [one for one in trainer.callbacks if not is_trusted(type(one), private.TRUSTED)],
    )
    yield from (*module.modules(), *own, *private.hooks_of_training(trainer))
    if trainer.datamodule is not None:
        yield trainer.datamodule


_CONDITIONS = (
    *(_on_one_device, _tells_before_it_steps, _optimizers_of_torch),
    *(_machinery_known, _no_code_goes_behind),
)
