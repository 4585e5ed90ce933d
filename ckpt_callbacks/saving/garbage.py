"""Garbage: Python's own search for it, which a save is better off without."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

__all__ = ["no_search"]


@contextlib.contextmanager
def no_search() -> Iterator[None]:
    """Let Python look for no garbage here, if it does so at all.

    The walk over thousands of tensors makes so many objects, none of them garbage, that Python would look through all
    it has, several times, and take longer over it than the walk does.
    """
    searches = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if searches:
            gc.enable()
