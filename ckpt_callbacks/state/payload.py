"""The files of a snapshot, the manifest aside: packing a captured state into them, and reading it back.

``model.safetensors``  the weights, under the framework's own names
``state.safetensors``  every other tensor
``state.json``         the tree of both: plain values, and references to the tensors
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ckpt_callbacks.errors import CorruptSnapshotError
from ckpt_callbacks.state import safetensors_file, tree

__all__ = ["MODEL", "STATE", "TREE", "Files", "pack", "read"]

MODEL, STATE, TREE = "model.safetensors", "state.safetensors", "state.json"

Files = Mapping[str, Iterable[bytes | bytearray | memoryview]]


def pack(
    weights: Mapping[str, Any],
    rest: Mapping[str, Any] | None,
    *,
    copy: bool,
    missing: Mapping[str, str],
    on_unstorable: Callable[[str, object], object] | None = None,
) -> Files:
    """Turn a state into file name -> the file's bytes in pieces.

    Args:
        weights: name -> tensor; other values (a module's extra state) are stored with ``rest``.
        rest: everything else, or None to keep the weights only.
        copy: own the bytes, so that training may go on; False borrows them.
        missing: parts that are not captured -> why; read after ``on_unstorable`` was asked for all.
        on_unstorable: see `ckpt_callbacks.state.encode`.

    Raises:
        UnstorableError: naming every leaf that can't be stored; nothing was written.
    """
    model = tree.encode(dict(weights), copy=copy, views=False, on_unstorable=on_unstorable)
    aliases = _aliases(model.structure)
    metadata = {"aliases": json.dumps(aliases)} if aliases else {}
    files: dict[str, Iterable[bytes | bytearray | memoryview]] = {
        MODEL: safetensors_file.Image.of(model.tensors, metadata).chunks()
    }
    structure = {"weights": model.structure}
    if rest is not None:
        other = tree.encode(dict(rest), copy=copy, on_unstorable=on_unstorable)
        files[STATE] = safetensors_file.Image.of(other.tensors, {}).chunks()
        structure |= {"rest": other.structure, "missing": dict(missing)}
    files[TREE] = [tree.to_json(structure)]
    return files


def read(directory: Path) -> tuple[dict[str, Any], Any, dict[str, str]]:
    """Read a snapshot: its weights, the rest of its state (None if it holds weights only), and what is missing, why.

    Raises:
        CorruptSnapshotError: a file is missing or can't be parsed.
    """
    try:
        text = (directory / TREE).read_bytes()
    except FileNotFoundError:
        raise CorruptSnapshotError(f"{directory / TREE} is missing.") from None
    structure = tree.from_json(text, str(directory / TREE))
    if not isinstance(structure, dict) or "weights" not in structure:
        raise CorruptSnapshotError(
            f"{directory / TREE}: expected an object with 'weights', found {type(structure).__name__}."
        )
    weights = tree.decode(structure["weights"], safetensors_file.open_file(directory / MODEL))
    if "rest" not in structure:
        return weights, None, {}
    rest = tree.decode(structure["rest"], safetensors_file.open_file(directory / STATE))
    return weights, rest, dict(structure.get("missing", {}))


def _aliases(structure: Mapping[str, Any]) -> dict[str, str]:
    """Names of tied weights -> the name under which their one copy is stored."""
    return {
        name: node["ref"]
        for name, node in structure.items()
        if isinstance(node, dict) and node.get("$") == "tensor" and node["ref"] != name
    }
