"""Weights of a snapshot into a Keras model, without a fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras

from ckpt_callbacks.errors import ResumeError
from ckpt_callbacks.keras.state import names_of
from ckpt_callbacks.run import resolve_reference
from ckpt_callbacks.state.files import payload
from ckpt_callbacks.state.selection import LoadReport, Names, Rename, match
from ckpt_callbacks.store import unless_deleted

__all__ = ["load_weights"]


def load_weights(
    model: keras.Model,
    ref: str | Path,
    strict: bool = True,
    include: Names = None,
    exclude: Names = None,
    rename: Rename = None,
) -> LoadReport:
    """Copy a snapshot's weights into ``model``, in place.

    Keras' paths differ between processes (``dense``, ``dense_1``), so a model whose variables have the snapshot's
    shapes in the same order is matched by order; any other, or with ``include``, ``exclude`` or ``rename``, by path.

    Args:
        model: built.
        ref: ``"runs/a@best"``, ``"runs/a@1200"``, a run's or a snapshot's directory.
        strict: refuse unless names match both ways (one way with ``include`` or ``exclude``).
        include, exclude: paths to take or leave: glob patterns such as ``"encoder/*"``, or a function of the path.
        rename: prefix -> other prefix, or a function from the snapshot's path to the model's.

    Raises:
        ResumeError: listing what doesn't fit; nothing was copied.
        SnapshotNotFoundError, CorruptSnapshotError: about the snapshot.
    """
    if not model.built:
        raise ResumeError("the model has no variables yet: build it (call it on a batch, or model.build(shape)) first.")
    snapshot = resolve_reference(ref)
    snapshot.verify().require_ok()
    with unless_deleted(snapshot.path):
        weights = payload.read_weights(snapshot.path)
    own: dict[str, Any] = dict(zip(names_of(model.variables), model.variables, strict=True))
    if include is exclude is rename is None and _same_shapes(weights, own):
        weights = dict(zip(own, weights.values(), strict=True))
    shapes = {name: tuple(variable.shape) for name, variable in own.items()}
    chosen, report = match(weights, shapes, strict=strict, include=include, exclude=exclude, rename=rename)
    for name, value in chosen.items():
        own[name].assign(value)
    return report


def _same_shapes(weights: dict[str, Any], own: dict[str, Any]) -> bool:
    shapes = [tuple(value.shape) for value in weights.values()]
    return shapes == [tuple(variable.shape) for variable in own.values()]
