"""Packing: laying a captured state out as the files of a snapshot, and copying it there.

Packing knows every file's layout before a byte is copied; staging copies into memory that is used again and again.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import xxhash

from ckpt_callbacks.state import tree
from ckpt_callbacks.state.files.health import not_finite
from ckpt_callbacks.state.files.payload import INDEX, MODEL, STATE, TREE
from ckpt_callbacks.state.files.shards import Shards, names_of, pattern_of
from ckpt_callbacks.state.files.still import is_still
from ckpt_callbacks.state.memory.arena import Arena, Block
from ckpt_callbacks.state.memory.copying import Copying, Lent, glance
from ckpt_callbacks.state.memory.pages import Bytes, aligned
from ckpt_callbacks.state.tensors.devices import Flight
from ckpt_callbacks.state.tensors.libraries import library_of
from ckpt_callbacks.state.tensors.safetensors_file import Image, Layout
from ckpt_callbacks.state.tensors.tensor import Source

__all__ = ["Files", "Packed", "Packer", "Staged"]

Files = Mapping[str, Sequence[bytes | bytearray | memoryview]]

SMALL = 1 << 16
"""A tensor of more bytes than this is copied alone: the call costs little beside the bytes."""

GLANCE = 1024
"""About how many bytes of a tensor tell at a glance that it changed since the last snapshot."""

# Kinds of values that come back as plain ones, since a file names no type to import.
_PLAIN_ON_RETURN = {"dataclass": "dict", "enum": "value"}


@dataclass(frozen=True)
class Packed:
    """A state whose files are laid out; the bytes of its tensors are still where training has them.

    Attributes:
        images: file -> what it will hold, of those with tensors.
        structure: the tree, as plain JSON.
        missing: path of each part that a resume will lack, or get in another type -> why.
        shards: what learns from each of these files which tensors stay the same.
    """

    images: Mapping[str, Image]
    structure: Mapping[str, Any]
    missing: Mapping[str, str]
    shards: Mapping[str, Shards]

    def stage(self, arena: Arena, steady: Mapping[int, Any] = MappingProxyType({})) -> Staged:
        """Copy the state, so that training may go on.

        Args:
            arena: gives the memory.
            steady: address -> tensor, of those that should not change for a while: they are only noted, and copied
                by ``copying``. Who trains must `conclude` it before they change.

        Raises:
            MemoryError: there is no room for it.
        """
        block = arena.lend(sum(aligned(image.size) for image in self.images.values()))
        later: list[tuple[Lent, Bytes]] = []
        flight = Flight()
        try:
            parts = {name: block.part(image.size) for name, image in self.images.items()}
            for name, image in self.images.items():
                later += _fill(image, parts[name], steady, flight)
        except BaseException:
            flight.depart(self._sources())
            flight.land()
            block.give_back()
            raise
        flight.depart(self._sources())
        layouts = {name: image.layout for name, image in self.images.items()}
        return Staged(self.structure, self.index(), layouts, self.shards, parts, block, Copying(later, flight))

    def _sources(self) -> Iterator[Source]:
        return (source for image in self.images.values() for source in image.tensors.values())

    def index(self) -> bytes | None:
        """Which file has which weight, if there are several: as the hub's tools have it."""
        files = [(name, image) for name, image in self.images.items() if pattern_of(MODEL).fullmatch(name)]
        if len(files) < 2:
            return None
        total = sum(tensor.nbytes for _, image in files for tensor in image.tensors.values())
        weights = {weight: name for name, image in files for weight in image.tensors}
        return json.dumps({"metadata": {"total_size": total}, "weight_map": weights}, indent=2).encode()


@dataclass(frozen=True)
class Staged:
    """A state that training can't change any more, once ``copying`` is concluded. It refers to nothing of training's
    then, which may need the memory.

    Attributes:
        structure, index: as of what was packed.
        layouts: file -> where everything lies in it, of those with tensors.
        shards: what learns from each of these files.
        parts: file -> its bytes.
        block: where they lie.
        copying: what is still on its way there.
    """

    structure: Mapping[str, Any]
    index: bytes | None
    layouts: Mapping[str, Layout]
    shards: Mapping[str, Shards]
    parts: Mapping[str, Bytes]
    block: Block
    copying: Copying

    def files(self) -> Files:
        """Each file's bytes in pieces. The tree becomes text only now: by whoever writes it, beside training."""
        return {
            **{name: [part.data] for name, part in self.parts.items()},
            TREE: [tree.to_json(self.structure)],
            **({INDEX: [self.index]} if self.index else {}),
        }

    def not_finite(self, trained: Set[str]) -> str | None:
        """The name of the first weight that holds NaN, or that is trained and holds an infinity; None without."""
        files = [name for name in self.layouts if pattern_of(MODEL).fullmatch(name)]
        found = (one for name in files for one in not_finite(self.layouts[name], self.parts[name], trained))
        return next(found, None)

    def same_as(self, directory: Path, trained: Set[str]) -> bool:
        """Whether none of these weights has changed since the snapshot that lies in ``directory``.

        Others move with every step, trained or not: running statistics, seeds of layers that draw.

        Raises:
            OSError: that one can't be read.
        """
        files = {name: layout for name, layout in self.layouts.items() if pattern_of(MODEL).fullmatch(name)}
        held = {name for layout in files.values() for name in layout.spans}
        watched = held & trained or held
        return all(
            is_still(directory / name, layout, self.parts[name], watched)
            for name, layout in files.items()
            if watched & layout.spans.keys()
        )

    def learn(self) -> None:
        """See which tensors are the same as in the last snapshot that was learned from."""
        digests: dict[Shards, dict[str, str]] = {}
        sizes: dict[Shards, dict[str, int]] = {}
        for name, layout in self.layouts.items():
            shards = self.shards[name]
            watched = {key: span for key, span in layout.spans.items() if shards.watches(key, span[1] - span[0])}
            for key, (start, stop) in watched.items():
                data = self.parts[name][start:stop]
                sizes.setdefault(shards, {})[key] = stop - start
                if not shards.moved(key, glance(data, GLANCE)):
                    digests.setdefault(shards, {})[key] = xxhash.xxh3_128_hexdigest(data.data)
        for shards in set(self.shards.values()):
            shards.learn(digests.get(shards, {}), sizes.get(shards, {}))

    def release(self) -> None:
        """It is written, or never will be."""
        self.copying.land()
        self.block.give_back()


class Packer:
    """Lays out the states of a run, one after the other, and remembers what stays the same from one to the next."""

    def __init__(self) -> None:
        self._shards = {MODEL: Shards(), STATE: Shards()}
        self._layouts: dict[str, tuple[object, Layout]] = {}  # file -> what the last one held, and how it was laid out

    def pack(
        self,
        weights: Mapping[str, Any],
        rest: Mapping[str, Any] | None,
        *,
        optional: tuple[str, ...] = (),
        missing: Mapping[str, str] | None = None,
        frozen: Set[str] = frozenset(),
    ) -> Packed:
        """Lay out a state's files. What can't be stored without pickle is left out and named.

        Args:
            weights: name -> tensor; other values (a module's extra state) stand in the tree.
            rest: everything else, or None to keep the weights only.
            optional: beginnings of paths in ``rest`` that resume does not need: what can't be stored there is kept as
                its repr, and not named.
            missing: parts that the caller knows to be missing -> why.
            frozen: the names of weights that aren't trained.
        """
        absent = dict(missing or {})

        def replacement(path: str, value: object, reason: str) -> object:
            if path.startswith(optional):
                return repr(value)
            why = "without pickle" if library_of(value) is None else f"({reason})"
            absent[path] = f"{type(value).__name__} can't be stored {why}"
            return None

        model = tree.plan(dict(weights), views=False, on_unstorable=replacement)
        images = self._images(MODEL, model.sources, frozen, _aliases(model.structure))
        shards = dict.fromkeys(images, self._shards[MODEL])
        structure = {"weights": model.structure}
        if rest is not None:
            other = tree.plan(dict(rest), on_unstorable=replacement)
            images |= (more := self._images(STATE, other.sources))
            shards |= dict.fromkeys(more, self._shards[STATE])
            flattened = _flattened(other.structure, "") if other.flattens else ()
            absent |= _in_short((path, what) for path, what in flattened if not path.startswith(optional))
            structure |= {"rest": other.structure, "missing": absent}
        return Packed(images, structure, absent, shards)

    def _images(
        self,
        base: str,
        sources: Mapping[str, Source],
        frozen: Set[str] = frozenset(),
        aliases: Mapping[str, str] = MappingProxyType({}),
    ) -> dict[str, Image]:
        """The files for these tensors; each tells the other names of those that it holds."""
        parts = self._shards[base].split(sources, frozen)
        images = {}
        for name, part in zip(names_of(base, len(parts)), parts, strict=True):
            own = {alias: stored for alias, stored in aliases.items() if stored in part}
            images[name] = Image(self._layout(name, part, {"aliases": json.dumps(own)} if own else {}), part)
        return images

    def _layout(self, name: str, part: Mapping[str, Source], metadata: Mapping[str, str]) -> Layout:
        """Where everything lies in a file: as in the last one of this name, if it held tensors of the same shapes."""
        held = metadata, [(key, tensor.dtype, tensor.shape) for key, tensor in part.items()]
        before, layout = self._layouts.get(name, (None, None))
        if layout is None or before != held:
            layout = Layout.of(part, metadata)
            self._layouts[name] = held, layout
        return layout


def _fill(image: Image, out: Bytes, steady: Mapping[int, Any], flight: Flight) -> list[tuple[Lent, Bytes]]:
    """Copy a file's tensors to ``out``, but for the steady ones: these, and where they belong."""
    now: list[tuple[Source, int, int]] = []
    later: list[tuple[Lent, Bytes]] = []
    for tensor, start, stop in image.begin(out):
        if steady and flight.takes(tensor, steady, out[start:stop]):
            continue
        lent = tensor.lent(steady) if steady else None
        if lent is None:
            now.append((tensor, start, stop))
        else:
            later.append((lent, out[start:stop]))
    for group in _neighbours(now):
        (first, start, _), (_, _, stop) = group[0], group[-1]
        if len(group) == 1 or not first.library.gather([tensor.array for tensor, _, _ in group], out[start:stop]):
            for tensor, start, stop in group:
                tensor.copy_into(out[start:stop])
    return later


def _neighbours(places: Iterable[tuple[Source, int, int]]) -> Iterator[list[tuple[Source, int, int]]]:
    """Small tensors of one library and type that will lie side by side: thousands of them are copied as one."""
    group: list[tuple[Source, int, int]] = []
    for place in places:
        if group and not _go_together(*group[-1], *place):
            yield group
            group = []
        group.append(place)
    if group:
        yield group


def _go_together(one: Source, begin: int, end: int, other: Source, start: int, stop: int) -> bool:
    small = end == start and end - begin <= SMALL and stop - start <= SMALL
    return small and one.dtype == other.dtype and one.library is other.library


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
