"""The files of a snapshot, the manifest aside: packing a captured state into them, and reading it back.

``model.safetensors``  the weights, under the framework's own names
``state.safetensors``  every other tensor
``state.json``         the tree of both: plain values, and references to the tensors
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ckpt_callbacks.errors import CorruptSnapshotError
from ckpt_callbacks.state import tree
from ckpt_callbacks.state.arena import Arena, Block, aligned
from ckpt_callbacks.state.safetensors_file import Image, open_file

__all__ = ["MODEL", "STATE", "TREE", "Files", "Packed", "Staged", "pack", "read", "read_weights"]

MODEL, STATE, TREE = "model.safetensors", "state.safetensors", "state.json"

Files = Mapping[str, Iterable[bytes | bytearray | memoryview]]

# Kinds of values that come back as plain ones, since a file names no type to import.
_PLAIN_ON_RETURN = {"dataclass": "dict", "enum": "value"}


@dataclass(frozen=True)
class Packed:
    """A state whose files are laid out; the bytes of its tensors are still where training has them.

    Attributes:
        images: file -> what it will hold, of those with tensors.
        structure: the tree, as plain JSON.
        missing: path of each part that a resume will lack, or get in another type -> why.
    """

    images: Mapping[str, Image]
    structure: Mapping[str, Any]
    missing: Mapping[str, str]

    def stage(self, arena: Arena) -> Staged:
        """Copy the state, so that training may go on. MemoryError: there is no room for it."""
        block = arena.lend(sum(aligned(image.size) for image in self.images.values()))
        try:
            parts = {name: block.part(image.size) for name, image in self.images.items()}
            for name, image in self.images.items():
                image.fill(parts[name])
        except BaseException:
            block.give_back()
            raise
        return Staged({**{name: [part.data] for name, part in parts.items()}, TREE: self._tree()}, block)

    def _tree(self) -> Iterator[bytes]:
        yield tree.to_json(self.structure)  # when it is asked for: by whoever writes, beside training


@dataclass(frozen=True)
class Staged:
    """A state that training can't change any more.

    Attributes:
        files: name -> the file's bytes in pieces, to be taken once.
        block: where they lie, to be given back when they are written.
    """

    files: Files
    block: Block


def pack(
    weights: Mapping[str, Any],
    rest: Mapping[str, Any] | None,
    *,
    optional: tuple[str, ...] = (),
    missing: Mapping[str, str] | None = None,
) -> Packed:
    """Lay out a state's files. What can't be stored without pickle is left out and named.

    Args:
        weights: name -> tensor; other values (a module's extra state) stand in the tree.
        rest: everything else, or None to keep the weights only.
        optional: beginnings of paths in ``rest`` that resume does not need: what can't be stored there is kept as its
            repr, and not named.
        missing: parts that the caller knows to be missing -> why.
    """
    absent = dict(missing or {})

    def replacement(path: str, value: object) -> object:
        if path.startswith(optional):
            return repr(value)
        absent[path] = f"{type(value).__name__} can't be stored without pickle"
        return None

    model = tree.plan(dict(weights), views=False, on_unstorable=replacement)
    aliases = _aliases(model.structure)
    images = {MODEL: Image.of(model.sources, {"aliases": json.dumps(aliases)} if aliases else {})}
    structure = {"weights": model.structure}
    if rest is not None:
        other = tree.plan(dict(rest), on_unstorable=replacement)
        images[STATE] = Image.of(other.sources, {})
        absent |= _in_short(
            (path, what) for path, what in _flattened(other.structure, "") if not path.startswith(optional)
        )
        structure |= {"rest": other.structure, "missing": absent}
    return Packed(images, structure, absent)


def read_weights(directory: Path) -> dict[str, Any]:
    """Read a snapshot's weights and nothing else.

    Raises:
        CorruptSnapshotError: a file is missing or can't be parsed.
    """
    return dict(tree.decode(_structure(directory)["weights"], open_file(directory / MODEL)))


def read(directory: Path) -> tuple[dict[str, Any], Any, dict[str, str]]:
    """Read a snapshot: its weights, the rest of its state (None if it holds weights only), and what is missing, why.

    Raises:
        CorruptSnapshotError: a file is missing or can't be parsed.
    """
    structure = _structure(directory)
    weights = tree.decode(structure["weights"], open_file(directory / MODEL))
    if "rest" not in structure:
        return weights, None, {}
    rest = tree.decode(structure["rest"], open_file(directory / STATE))
    return weights, rest, dict(structure.get("missing", {}))


def _structure(directory: Path) -> dict[str, Any]:
    path = directory / TREE
    try:
        structure = tree.from_json(path.read_bytes(), str(path))
    except FileNotFoundError:
        raise CorruptSnapshotError(f"{path} is missing.") from None
    if not isinstance(structure, dict) or "weights" not in structure:
        raise CorruptSnapshotError(f"{path}: expected an object with 'weights', found {type(structure).__name__}.")
    return structure


def _aliases(structure: Mapping[str, Any]) -> dict[str, str]:
    """Names of tied weights -> the name under which their one copy is stored."""
    return {
        name: node["ref"]
        for name, node in structure.items()
        if isinstance(node, dict) and node.get("$") == "tensor" and node["ref"] != name
    }


def _in_short(flattened: Iterable[tuple[str, str]]) -> dict[str, str]:
    """One entry for each place, however many values it has that come back in a plainer type."""
    found: dict[str, Counter[str]] = {}
    for path, what in flattened:
        found.setdefault(path, Counter())[what] += 1
    return {
        path: ", ".join(what if count == 1 else f"{count} times: {what}" for what, count in counts.items())
        for path, counts in found.items()
    }


def _flattened(node: Any, path: str) -> Iterator[tuple[str, str]]:
    """Places of values that come back in a plainer type -> what happens to them. A place is a whole attribute's."""
    if isinstance(node, dict):
        plain = _PLAIN_ON_RETURN.get(node.get("$", ""))
        if plain is not None:
            yield path, f"{node.get('type', 'its type')} comes back as a plain {plain}"
    attribute = _attribute(node)
    for name, inner in _children(node):
        if attribute is None:
            yield from _flattened(inner, f"{path}.{name}" if path else str(name))
        else:
            yield from ((attribute, what) for _, what in _flattened(inner, ""))


def _attribute(node: Any) -> str | None:
    """The path of the attribute that a node is, if it is one that ``Attributes`` saved."""
    if isinstance(node, dict) and {"in", "key", "value"} <= node.keys():
        return f"{node['in']}.{node['key']}"
    return None


def _children(node: Any) -> Iterable[tuple[Any, Any]]:
    """The nodes within a node and what they are called in a path."""
    if isinstance(node, list):
        return enumerate(node)
    if not isinstance(node, dict):
        return ()
    items = node.get("items")
    if "$" not in node or items is None:
        return node.items()
    pairs = all(isinstance(item, list) and len(item) == 2 for item in items)
    return items if pairs and node["$"].lower().endswith(("dict", "counter")) else enumerate(items)
