"""The files of a snapshot, the manifest aside: what they are called, and what they hold.

``model.safetensors``  the weights, under the framework's own names
``state.safetensors``  every other tensor
``state.json``         the tree of both: plain values, and references to the tensors

Of either of the first two there may be several, numbered: see `shards`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ckpt_callbacks.errors import CorruptSnapshotError
from ckpt_callbacks.state import tree
from ckpt_callbacks.state.safetensors_file import open_file
from ckpt_callbacks.state.shards import pattern_of
from ckpt_callbacks.state.tensors import HostTensor

__all__ = ["INDEX", "MODEL", "STATE", "TREE", "read", "read_weights"]

MODEL, STATE, TREE = "model.safetensors", "state.safetensors", "state.json"
INDEX = "model.safetensors.index.json"


def read_weights(directory: Path) -> dict[str, Any]:
    """Read a snapshot's weights and nothing else: tensors over the mapped file, whose pages are copied if written to.

    Raises:
        CorruptSnapshotError: a file is missing or can't be parsed.
    """
    return dict(_weights(directory, _structure(directory)))


def read(directory: Path) -> tuple[dict[str, Any], Any, dict[str, str]]:
    """Read a snapshot: its weights (see `read_weights`: whoever wants them copies them into a model), the rest of its
    state (None if it holds weights only), and what is missing, why.

    Raises:
        CorruptSnapshotError: a file is missing or can't be parsed.
    """
    structure = _structure(directory)
    weights = _weights(directory, structure)
    if "rest" not in structure:
        return weights, None, {}
    rest = tree.decode(structure["rest"], _tensors(directory, STATE))
    return weights, rest, dict(structure.get("missing", {}))


def _weights(directory: Path, structure: Mapping[str, Any]) -> dict[str, Any]:
    weights: dict[str, Any] = tree.decode(structure["weights"], _tensors(directory, MODEL, writable=True), copy=False)
    return weights


def _tensors(directory: Path, base: str, *, writable: bool = False) -> dict[str, HostTensor]:
    """The tensors of a file, or of those that stand in its place."""
    pattern = pattern_of(base)
    names = sorted(path.name for path in directory.iterdir() if pattern.fullmatch(path.name)) or [base]
    return {key: tensor for name in names for key, tensor in open_file(directory / name, writable=writable).items()}


def _structure(directory: Path) -> dict[str, Any]:
    path = directory / TREE
    try:
        structure = tree.from_json(path.read_bytes(), str(path))
    except FileNotFoundError:
        raise CorruptSnapshotError(f"{path} is missing.") from None
    if not isinstance(structure, dict) or "weights" not in structure:
        raise CorruptSnapshotError(f"{path}: expected an object with 'weights', found {type(structure).__name__}.")
    return structure
