"""The running fit: its callbacks, epochs and monitors."""

from __future__ import annotations

import sys
import threading
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras

from ckpt_callbacks.errors import ResumeError
from ckpt_callbacks.keras.private.batches import iterates_at_once

__all__ = [
    "Running",
    "begin_at_epoch",
    "devices",
    "evaluated",
    "has_monitor",
    "hear_first",
    "is_in_fit",
    "is_plain_progress_bar",
    "make_evaluated",
    "prepare_monitor",
    "presence",
    "running_fit",
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


def evaluated(model: Any) -> Any:
    """``model._eval_epoch_iterator``: of the validation data, kept over a fit; None before the first validation."""
    return getattr(model, "_eval_epoch_iterator", None)


def begin_at_epoch(model: Any, epoch: int | None) -> None:
    """``model._initial_epoch``: where fit begins to count, read after on_train_begin (BackupAndRestore uses it too)."""
    model._initial_epoch = epoch


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
