"""Which of a state's tensors share a file.

A file with the bytes of one that the last snapshot has is not written again, so tensors that training leaves alone (a
frozen backbone, an embedding that no batch touches) lie apart from those that change. Which ones they are is said by
the adapter at first, and then seen from snapshot to snapshot. No file is larger than `LARGEST`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Protocol, TypeVar

__all__ = ["LARGEST", "Shards", "names_of", "pattern_of"]

LARGEST = 5_000_000_000
"""The most bytes of tensors in a file, one tensor more than that aside: the hub's limit for a file."""

SMALLEST = 1 << 20
"""Fewer bytes than this are not worth a file of their own."""

NOTICED = 1 << 14
"""Tensors of fewer bytes than this are not watched: all of them together are little, and each costs some time."""

WORTH = 0.1
"""What part of all bytes must have stayed the same before files are cut anew, which writes them once more."""


class Sized(Protocol):
    """Anything of which only the size counts here."""

    @property
    def nbytes(self) -> int:
        """How many bytes it has."""


T = TypeVar("T", bound=Sized)


class Shards:
    """The tensors of a tree from snapshot to snapshot: which of them stay the same."""

    def __init__(self) -> None:
        self._digests: Mapping[str, str] | None = None  # of the last snapshot
        self._glances: dict[str, bytes] = {}  # of the last snapshot, too
        self._still: frozenset[str] | None = None

    def split(self, tensors: Mapping[str, T], frozen: Set[str] = frozenset()) -> list[dict[str, T]]:
        """The tensors of each file: first those that change, then those that stay the same.

        Args:
            tensors: name -> what is to be stored.
            frozen: names of those that training does not change, as far as anybody can tell beforehand.
        """
        if self._still is None:
            self._still = frozenset(frozen)
        still = {name: tensor for name, tensor in tensors.items() if name in self._still}
        if _bytes_of(still.values()) < SMALLEST:
            still = {}
        changing = {name: tensor for name, tensor in tensors.items() if name not in still}
        return [*_cut(changing), *(_cut(still) if still else [])]

    def watches(self, name: str, nbytes: int) -> bool:
        """Whether it is worth knowing if this tensor stays the same: it is large, or lies with those that do."""
        return nbytes >= NOTICED or name in (self._still or ())

    def moved(self, name: str, glance: bytes) -> bool:
        """Whether a few of a tensor's bytes are already enough to tell that it changed: it needs no digest then."""
        last, self._glances[name] = self._glances.get(name), glance
        return last is not None and last != glance

    def learn(self, digests: Mapping[str, str], sizes: Mapping[str, int]) -> None:
        """Look at what a snapshot holds: the size of each tensor that is watched, and its digest unless it `moved`."""
        last, self._digests = self._digests, dict(digests)
        if last is None or self._still is None:
            return
        same = {name for name, digest in digests.items() if last.get(name) == digest}
        still = self._still & same
        found = same - still
        if sum(sizes[name] for name in found) >= max(SMALLEST, WORTH * sum(sizes.values())):
            still |= found
        self._still = still


def names_of(base: str, count: int) -> list[str]:
    """The names of ``count`` files in place of one called ``base``, as the hub has them."""
    stem, dot, suffix = base.rpartition(".")
    return [base] if count == 1 else [f"{stem}-{k:05}-of-{count:05}{dot}{suffix}" for k in range(1, count + 1)]


def pattern_of(base: str) -> re.Pattern[str]:
    """What matches each of the names that such files may have."""
    stem, _, suffix = base.rpartition(".")
    return re.compile(rf"{re.escape(stem)}(-\d+-of-\d+)?\.{re.escape(suffix)}")


def _bytes_of(tensors: Iterable[Sized]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def _cut(tensors: Mapping[str, T]) -> Iterator[dict[str, T]]:
    """Cut into parts that aren't too large; no tensors at all are one part."""
    part: dict[str, T] = {}
    size = 0
    for name, tensor in tensors.items():
        if part and size + tensor.nbytes > LARGEST:
            yield part
            part, size = {}, 0
        part[name] = tensor
        size += tensor.nbytes
    yield part
