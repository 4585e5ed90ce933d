"""A copy that is made while training goes on, of tensors that it won't change for a while.

Whoever changes them must `finish` the copy before. That nobody did earlier is proved, not believed: torch counts the
changes of each tensor, and a copy during which a count moved is torn, and worth nothing.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ckpt_callbacks.state.pages import Bytes

__all__ = ["Copier", "Copying", "Lent"]

PIECE = 4 << 20
"""How many bytes are copied at a time: some milliseconds at most, for which whoever waits may have to wait."""


@dataclass(frozen=True, slots=True, eq=False)
class Lent:
    """A tensor's bytes, borrowed; ``changes`` gives a number that is another one after a change."""

    data: Bytes
    changes: Callable[[], int]


class Copying:
    """One such copy, shared by those who make it.

    Args:
        pairs: what is copied, and where to.
    """

    def __init__(self, pairs: Sequence[tuple[Lent, Bytes]]) -> None:
        self._counts = [(lent.changes, lent.changes()) for lent, _ in pairs]
        self._left = deque(_pieces(pairs))
        self._undone = len(self._left)
        self._turn = threading.Condition()
        self._whole: bool | None = None if self._left else True

    @property
    def unfinished(self) -> bool:
        """Whether some of it may still be under way."""
        return self._whole is None

    def work(self) -> None:
        """Copy piece by piece, beside others who do, until none is left. From any thread."""
        while True:
            try:
                data, out = self._left.popleft()
            except IndexError:
                return
            np.copyto(out, data)  # leaves the interpreter to others
            del data, out
            with self._turn:
                self._undone -= 1
                if not self._undone:
                    self._conclude()

    def finish(self) -> bool:
        """Lend a hand, and return when all is copied: whether it is all of the moment when it was begun."""
        self.work()
        with self._turn:
            self._turn.wait_for(lambda: self._whole is not None)
            return bool(self._whole)

    def _conclude(self) -> None:
        """Before anyone is told that it is done: what changes from now on doesn't count."""
        self._whole = all(changes() == before for changes, before in self._counts)
        self._counts.clear()  # they hold tensors
        self._turn.notify_all()


class Copier:
    """A thread that copies, started when there is something to copy."""

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[Copying | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def begin(self, copying: Copying) -> None:
        """Begin to copy."""
        if self._thread is None:
            # A daemon, as the writer's: what it copies is lost with the process either way.
            self._thread = threading.Thread(target=self._loop, name="ckpt-copier", daemon=True)
            self._thread.start()
        self._waiting.put(copying)

    def close(self) -> None:
        """End the thread, once all is copied."""
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join()
            self._thread = None

    def _loop(self) -> None:
        while (copying := self._waiting.get()) is not None:
            copying.work()
            del copying


def _pieces(pairs: Sequence[tuple[Lent, Bytes]]) -> Iterator[tuple[Bytes, Bytes]]:
    for lent, out in pairs:
        for start in range(0, lent.data.nbytes, PIECE):
            yield lent.data[start : start + PIECE], out[start : start + PIECE]
