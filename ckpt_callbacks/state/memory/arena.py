"""The memory in which snapshots wait until they are written.

It is taken once and used again, for a copy into memory that has never been touched takes many times as long. Blocks
begin at a page, and so do their parts, as a write that bypasses the page cache asks for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from ckpt_callbacks.state.memory.pages import PAGE, Bytes, aligned, fresh

__all__ = ["Arena", "Block"]


_STRETCH = 16 << 20  # bytes that are touched before another look whether they are still wanted


class Arena:
    """Blocks of memory that are lent, given back, and lent again; one idle block is kept. Of any thread's use.

    A state grows by a few bytes now and then, so a fresh block is a sixteenth larger than it must be.

    Args:
        prepare: is given memory that is new.
    """

    def __init__(self, prepare: Callable[[Bytes], None] = lambda memory: None) -> None:
        self._prepare = prepare
        self._turn = threading.Lock()
        self._idle: Bytes | None = None
        self._asked = 0  # how often blocks were lent, or let go of

    def lend(self, nbytes: int) -> Block:
        """A block of at least ``nbytes``. MemoryError: there is not so much."""
        with self._turn:
            memory, self._idle = self._idle, None
            self._asked += 1
        if memory is None or memory.nbytes < nbytes:
            del memory  # before there is another one
            memory = fresh(nbytes + nbytes // 16, inherited=False)  # workers of data loaders don't look at it
            self._prepare(memory)
        return Block(self, memory)

    def warm(self, nbytes: int) -> None:
        """Have an idle block of about ``nbytes`` ready, with memory that was touched. It takes a while: on a thread.

        It is only a guess at what will be needed, and given up where there is no room, and once a block is lent or let
        go of.
        """
        with self._turn:
            asked = self._asked
            if self._idle is not None and self._idle.nbytes >= nbytes:
                return
        try:
            memory = fresh(nbytes + nbytes // 16, inherited=False)
        except MemoryError:
            return
        for start in range(0, memory.nbytes, _STRETCH):
            memory[start : start + _STRETCH : PAGE] = 0
            if self._asked != asked:
                return
        self._prepare(memory)
        with self._turn:
            if self._asked == asked:
                self._idle = memory

    def take_back(self, memory: Bytes) -> None:
        """Keep the memory of a block for the next one; of two, the larger."""
        with self._turn:
            if self._idle is None or self._idle.nbytes < memory.nbytes:
                self._idle = memory

    def clear(self) -> None:
        """Let go of the idle block, and of one that is made ready: nothing will be staged for a while."""
        with self._turn:
            self._idle = None
            self._asked += 1


class Block:
    """Memory that a snapshot's files are laid out in, one part after the other."""

    def __init__(self, arena: Arena, memory: Bytes) -> None:
        self._arena, self._memory, self._used = arena, memory, 0

    def part(self, nbytes: int) -> Bytes:
        """The next ``nbytes`` of it, from the beginning of a page."""
        start = self._used
        self._used = start + aligned(nbytes)
        if self._used > self._memory.nbytes:
            raise ValueError(f"a block of {self._memory.nbytes:,} bytes has no part from {start:,} to {self._used:,}")
        return self._memory[start : start + nbytes]

    def give_back(self) -> None:
        """Nobody looks at the parts any more."""
        self._arena.take_back(self._memory)
        self._memory, self._used = self._memory[:0], 0
