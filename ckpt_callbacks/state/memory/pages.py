"""Fresh memory, in pages.

The system finds and clears a page when it is touched first, which takes ten times as long as to fill it. A page of
2 MiB is found and cleared in a quarter of the time that 512 small ones take, where the system has such.
"""

from __future__ import annotations

import mmap
import os
import sys

import numpy as np
import numpy.typing as npt

__all__ = ["LARGE", "PAGE", "Bytes", "aligned", "fresh"]

PAGE = 4096
"""What fresh memory, and files that bypass the page cache, are aligned to, in bytes."""

LARGE = 4 << 20
"""From how many bytes on something gets pages of its own."""

Bytes = npt.NDArray[np.uint8]
"""A flat, C-contiguous array of bytes."""

# Shared is the default: a worker that writes to what it inherited would then write to its parent's, and large pages
# are seldom granted.
_PRIVATE: dict[str, int] = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
_HUGE = getattr(mmap, "MADV_HUGEPAGE", None)
_PHYSICAL = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else sys.maxsize
_DONT_FORK = getattr(mmap, "MADV_DONTFORK", None)


def aligned(nbytes: int) -> int:
    """The next multiple of a page."""
    return -(-nbytes // PAGE) * PAGE


def fresh(nbytes: int, *, inherited: bool = True) -> Bytes:
    """At least so many bytes, from the beginning of a page. MemoryError: there are not so many.

    What a forked process does not inherit, where the system knows of that, is not copied when its parent writes to it.
    """
    if nbytes > _PHYSICAL:  # some systems promise any amount, and kill who makes use of it
        raise MemoryError(f"{nbytes:,} bytes of memory can't be had: this machine has {_PHYSICAL:,}")
    try:
        pages = mmap.mmap(-1, max(aligned(nbytes), PAGE), **_PRIVATE)
    except (OSError, OverflowError) as error:
        raise MemoryError(f"{nbytes:,} bytes of memory can't be had: {error}") from error
    for advice in (_HUGE, None if inherited else _DONT_FORK):
        if advice is not None:
            pages.madvise(advice)
    return np.frombuffer(pages, np.uint8)
