"""Weights of a snapshot into a plain `torch.nn.Module`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ckpt_callbacks.run import resolve_reference
from ckpt_callbacks.state.files import payload
from ckpt_callbacks.state.selection import LoadReport, Names, Rename, match
from ckpt_callbacks.store import unless_deleted

__all__ = ["load_weights"]


def load_weights(
    module: torch.nn.Module,
    ref: str | Path,
    strict: bool = True,
    include: Names = None,
    exclude: Names = None,
    rename: Rename = None,
) -> LoadReport:
    """Copy a snapshot's weights into ``module``, in place.

    Args:
        module: what the weights go into; devices and dtypes stay the module's.
        ref: ``"runs/a@best"``, ``"runs/a@1200"``, a run's or a snapshot's directory.
        strict: refuse unless names match both ways (one way with ``include`` or ``exclude``).
        include, exclude: names to take or leave: glob patterns such as ``"backbone.*"``, or a function of the name.
        rename: prefix -> other prefix, or a function from the snapshot's name to the module's.

    Raises:
        ResumeError: listing what doesn't fit; nothing was copied.
        SnapshotNotFoundError, CorruptSnapshotError: about the snapshot.
    """
    snapshot = resolve_reference(ref)
    snapshot.verify().require_ok()
    with unless_deleted(snapshot.path):
        weights = payload.read_weights(snapshot.path)
    own: dict[str, Any] = module.state_dict()
    shapes = {name: tuple(value.shape) for name, value in own.items() if isinstance(value, torch.Tensor)}
    tensors = {name: value for name, value in weights.items() if isinstance(value, torch.Tensor)}
    chosen, report = match(tensors, shapes, strict=strict, include=include, exclude=exclude, rename=rename)
    module.load_state_dict({**own, **chosen})
    return report
