"""Which tensors of a tree are stored, under which names, and which of them share memory.

Tensors whose elements can overlap in memory are found by their addresses. Equal ones (same first element, shape,
strides and type) are stored once. Different views of the same elements are stored as one block, to which each refers
with an offset and strides, unless they use less than half of it: then each is stored alone. Tensors that merely lie
side by side in one buffer share no element: they are stored as tensors of their own, which any tool can read.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ckpt_callbacks.state.tensors.elements import itemsize, stored_as
from ckpt_callbacks.state.tensors.tensor import Leaf, Memory, Source

__all__ = ["Found", "shelve"]


class Found(NamedTuple):
    """A tensor, its path in the tree, and its place in the structure, whose object ``shelve`` completes."""

    path: str
    leaf: Leaf
    node: dict[str, Any]


def shelve(found: Sequence[Found], *, views: bool = True) -> dict[str, Source]:
    """Complete the structure's object of every tensor; return what has to be stored, by name, in the tree's order.

    Without ``views`` every view that isn't the same as another tensor is stored alone.
    """
    for each in found:
        leaf = each.leaf
        each.node.update(lib=leaf.library.name, dtype=leaf.dtype, shape=list(leaf.shape), **(leaf.extra or {}))
    names = _Names()
    sources: dict[str, Source] = {}
    for group in _sharing(found):
        block = _block(group) if views and len(group) > 1 else None
        if block is not None:
            name = names.unique(group[0].path)
            sources[name] = _source(group, block)
            for each in group:
                each.node.update(ref=name, view=_view(each.leaf, block))
            continue
        for same in _equal(group):
            name = names.unique(same[0].path)
            sources[name] = same[0].leaf.source()
            for each in same:
                each.node.update(ref=name)
                if each.leaf.order:
                    each.node.update(order=list(each.leaf.order))
    return sources


class _Names:
    """Names for tensors: their paths, told apart where two are the same."""

    def __init__(self) -> None:
        self.taken = {"__metadata__"}  # the one name that the file format keeps for itself

    def unique(self, path: str) -> str:
        base = path.encode("utf-8", "backslashreplace").decode()
        name, count = base, itertools.count(2)
        while name in self.taken:
            name = f"{base}~{next(count)}"
        self.taken.add(name)
        return name


def _sharing(found: Sequence[Found]) -> Iterator[list[Found]]:
    """Groups of tensors between which memory may overlap, each in the tree's order, ordered by their first members."""
    spaces: dict[object, list[tuple[int, int, int]]] = defaultdict(list)
    groups: dict[int, list[int]] = {}
    for index, each in enumerate(found):
        memory = each.leaf.memory
        if memory is None:
            groups[index] = [index]
        else:
            spaces[memory.space].append((memory.start, memory.stop, index))
    for extents in spaces.values():
        members: list[int] = []
        reach = -1
        for start, stop, index in sorted(extents):
            if start >= reach and members:
                groups[min(members)] = sorted(members)
                members = []
            members.append(index)
            reach = max(reach, stop)
        groups[min(members)] = sorted(members)
    for first in sorted(groups):
        yield [found[index] for index in groups[first]]


def _equal(group: Sequence[Found]) -> list[list[Found]]:
    """The group's members, those that are the same tensor together."""
    if len(group) == 1:
        return [[*group]]
    same: dict[object, list[Found]] = defaultdict(list)
    for index, each in enumerate(group):
        leaf = each.leaf
        same[index if leaf.memory is None else (leaf.memory.first, leaf.shape, leaf.strides, leaf.dtype)].append(each)
    return list(same.values())


@dataclass(frozen=True, slots=True)
class _Block:
    """Memory from ``start`` to ``stop`` that several views share, as an ``array`` of its bytes."""

    start: int
    stop: int
    array: Any


def _block(group: Sequence[Found]) -> _Block | None:
    """The block that different views share; None if they are all the same, use little of it, or it isn't one."""
    distinct = _equal(group)
    if len(distinct) == 1:
        return None
    start, stop = min(_memory(each).start for each in group), max(_memory(each).stop for each in group)
    used = sum(_elements(same[0].leaf) * itemsize(same[0].leaf.dtype) for same in distinct)
    if 2 * used < stop - start:
        return None
    for each in group:
        array = each.leaf.library.join(each.leaf.array, start, stop)
        if array is not None:
            return _Block(start, stop, array)
    return None


def _memory(each: Found) -> Memory:
    assert each.leaf.memory is not None, "only tensors with memory are grouped"
    return each.leaf.memory


def _elements(leaf: Leaf) -> int:
    """How many different elements a tensor has in memory: an expanded axis has one."""
    return math.prod(n for n, stride in zip(leaf.shape, leaf.strides, strict=True) if stride)


def _source(group: Sequence[Found], block: _Block) -> Source:
    """The block as a flat tensor: of the views' element type if they agree on it and its alignment, else of bytes."""
    leaf, nbytes = group[0].leaf, block.stop - block.start
    size = itemsize(leaf.dtype)
    agreed = all(each.leaf.dtype == leaf.dtype and (_memory(each).first - block.start) % size == 0 for each in group)
    if agreed and nbytes % size == 0:
        dtype, shape = stored_as(leaf.dtype, [nbytes // size])
        return Source(dtype, shape, leaf.library, block.array)
    return Source("U8", (nbytes,), leaf.library, block.array)


def _view(leaf: Leaf, block: _Block) -> dict[str, Any]:
    assert leaf.memory is not None, "only tensors with memory are views"
    return {"offset": leaf.memory.first - block.start, "strides": list(leaf.strides)}
