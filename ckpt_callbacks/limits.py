"""Limits: how large a snapshot's JSON files may be, which are read as a whole, and how much memory they may take once
they are parsed: ``[],`` are three bytes in a file and eighty in memory. A program that writes keeps to them, so that
one that reads may look first, and ask for memory then."""

from __future__ import annotations

__all__ = ["INDEX", "PARSED", "TREE", "most", "reckoned", "too_large", "too_much"]

TREE = 512 << 20
"""The most bytes of the tree, and of any other JSON file of a snapshot."""

INDEX = 64 << 20
"""The most bytes of the index that tells which file has which weight."""


PARSED = 2 << 30
"""The most bytes of memory that any of them may take, as `reckoned`: fifty million numbers, or five million objects."""

# About what an object, a list, a member, a half of a string and a place in a list take in Python. Those that stand in a
# string count as well, which makes it too much rather than too little.
_COSTS = ((b"{", 200), (b"[", 80), (b":", 80), (b'"', 28), (b",", 40))


def reckoned(text: bytes | memoryview) -> int:
    """About how many bytes of memory a JSON text takes once it is parsed, found without parsing it."""
    data = bytes(text)
    return sum(data.count(sign) * cost for sign, cost in _COSTS)


def too_much(name: str, needed: int) -> str | None:
    """What is wrong with a file that is `reckoned` to need so much memory, by its name, if it may not."""
    if most(name) is None or needed <= PARSED:
        return None
    return f"{name} would take some {needed:,} bytes of memory: expected at most {PARSED:,}"


def most(name: str) -> int | None:
    """The most bytes that a file of a snapshot may have, by its name; None if it may have any number."""
    if not name.endswith(".json"):
        return None
    return INDEX if name.endswith(".index.json") else TREE


def too_large(name: str, size: int) -> str | None:
    """What is wrong with a file of that size, if it may not be so large."""
    limit = most(name)
    if limit is None or size <= limit:
        return None
    return f"{name} has {size:,} bytes: expected at most {limit:,}"
