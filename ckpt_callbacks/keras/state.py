"""Model, optimizer, metrics, callbacks -> state, and back.

One rule: a state is put back at the place where it was captured, just as it was. Variables are matched by position and
checked by shape and dtype, because Keras' paths are neither unique nor stable between processes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from ckpt_callbacks.errors import ResumeError
from ckpt_callbacks.keras import private
from ckpt_callbacks.keras.live import Live
from ckpt_callbacks.keras.sources import without
from ckpt_callbacks.resume import Restored
from ckpt_callbacks.state import random_state
from ckpt_callbacks.state.captured import Captured

__all__ = ["capture", "names_of", "put_back"]


def names_of(variables: Sequence[Any]) -> list[str]:
    """A unique name for each variable: its path, numbered where the path is not unique."""
    seen: Counter[str] = Counter()
    names = []
    for variable in variables:
        seen[variable.path] += 1
        count = seen[variable.path]
        names.append(variable.path if count == 1 else f"{variable.path}#{count}")
    return names


def capture(model: Any, live: Live, where: str, data: Mapping[str, Any]) -> Captured:
    """Take the whole state of a fit; draws nothing and changes nothing.

    Args:
        model: with its optimizer.
        live: what changes outside of variables.
        where: training stands.
        data: how the data got there (``tape``), and what those of the validation remember (``validation``).
    """
    changed, missing = live.capture()
    missing |= {f"random state of {library}": why for library, why in random_state.not_captured().items()}
    rest = {
        "where": where,
        "random": random_state.capture(),
        "keras_seed": _maybe(private.variables.global_seed()),
        **data,
        "optimizers": [_optimizer(model, one) for one in private.models.optimizers_of(model)],
        "loose": _values(private.variables.loose_variables(model)),
        "buffers": {name: buffer.detach() for name, buffer in private.variables.buffers_of(model).items()},
        "metrics": _values(model.metrics_variables),
        "live": changed,
        "stop_training": bool(model.stop_training),
    }
    names = names_of(model.variables)
    weights = dict(zip(names, _values(model.variables), strict=True))
    frozen = set(map(id, private.models.frozen_variables(model)))
    still = {name for name, one in zip(names, model.variables, strict=True) if id(one) in frozen}
    changed_by_steps = {id(variable) for variable in model.trainable_variables}
    trained = {name for name, one in zip(names, model.variables, strict=True) if id(one) in changed_by_steps}
    return Captured(weights, rest, missing=missing, trained=trained, frozen=still)


def put_back(model: Any, live: Live, restored: Restored, *, metrics: bool, left: Sequence[str] = ()) -> None:
    """Set everything to what it was.

    Args:
        model: built, with its optimizer.
        live: what changes outside of variables.
        restored: the snapshot.
        metrics: whether the epoch's running metrics are put back too (not when a new epoch begins).
        left: parts of the random state that stay as they are.

    Raises:
        ResumeError: naming each variable that doesn't fit; nothing was assigned then.
    """
    rest = restored.rest
    pairs = [("model", model.variables, list(restored.weights.values()))]
    optimizers = private.models.optimizers_of(model)
    if len(optimizers) != len(rest["optimizers"]):
        raise ResumeError(
            f"snapshot {restored.snapshot.id} has {len(rest['optimizers'])} optimizers, the model in this script "
            f"{len(optimizers)}: compile it as it was, or train in another directory."
        )
    for optimizer, saved in zip(optimizers, rest["optimizers"], strict=True):
        _build(model, optimizer, saved["trained"])
        pairs.append((f"optimizer {optimizer.name}", optimizer.variables, saved["values"]))
    pairs.append(("layers' states", private.variables.loose_variables(model), rest["loose"]))
    if metrics:
        pairs.append(("metrics", model.metrics_variables, rest["metrics"]))
    _require_fit(restored, pairs)
    for _, variables, values in pairs:
        for variable, value in zip(variables, values, strict=True):
            private.variables.assign(variable, value)
    for name, buffer in private.variables.buffers_of(model).items():
        if name in rest["buffers"]:
            buffer.copy_(rest["buffers"][name])
    live.put_back(rest["live"])
    model.stop_training = restored.is_over(rest["stop_training"])
    if rest["keras_seed"] is not None:
        private.variables.make_global_seed().assign(rest["keras_seed"])
    random_state.restore(without(rest["random"], left))


def _optimizer(model: Any, optimizer: Any) -> dict[str, Any]:
    """An optimizer: its values, and by their positions the variables of the model that it trains."""
    positions = {id(variable): number for number, variable in enumerate(model.variables)}
    trained = [positions.get(id(variable), -1) for variable in private.models.trained_by(optimizer)]
    return {"trained": trained, "values": _values(optimizer.variables)}


def _build(model: Any, optimizer: Any, trained: Sequence[int]) -> None:
    """Make the variables of an optimizer, as its first step would: too late to assign to them."""
    if trained and not optimizer.built:
        everything, known = model.variables, -1 not in trained
        optimizer.build([everything[number] for number in trained] if known else model.trainable_variables)


def _values(variables: Sequence[Any]) -> list[np.ndarray]:
    return [private.variables.read(variable) for variable in variables]


def _maybe(variable: Any) -> np.ndarray | None:
    return None if variable is None else private.variables.read(variable)


def _require_fit(restored: Restored, pairs: Sequence[tuple[str, Sequence[Any], Sequence[np.ndarray]]]) -> None:
    """Refuse a snapshot of another model before anything is assigned."""
    wrong = [problem for name, variables, values in pairs for problem in _misfits(name, variables, values)]
    if wrong:
        listed = "\n  ".join(wrong[:20]) + ("\n  ..." if len(wrong) > 20 else "")
        raise ResumeError(
            f"the model in this script does not fit snapshot {restored.snapshot.id}:\n  {listed}\n"
            "Use the model that the snapshot was taken of, or train this one in another directory."
        )


def _misfits(part: str, variables: Sequence[Any], values: Sequence[np.ndarray]) -> list[str]:
    if len(variables) != len(values):
        return [f"{part}: {len(values)} variables in the snapshot, {len(variables)} here"]
    return [
        f"{part} {variable.path}: {value.dtype}{list(value.shape)} in the snapshot, "
        f"{variable.dtype}{list(variable.shape)} here"
        for variable, value in zip(variables, values, strict=True)
        if tuple(variable.shape) != value.shape or keras.backend.standardize_dtype(variable.dtype) != str(value.dtype)
    ]
