"""Limits: how large a snapshot's JSON files may be, which are read as a whole. A program that writes keeps to them, so
that one that reads may look at a size first, and ask for memory then."""

from __future__ import annotations

__all__ = ["INDEX", "TREE", "most", "too_large"]

TREE = 512 << 20
"""The most bytes of the tree, and of any other JSON file of a snapshot."""

INDEX = 64 << 20
"""The most bytes of the index that tells which file has which weight."""


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
