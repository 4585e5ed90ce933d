"""A copy that is made while training goes on, of tensors that it should not change meanwhile.

That it did not is not believed: torch counts the changes of each tensor. It counts after a change, and training may be
amid one when the last byte is copied; so the verdict is training's own to give, between two operations (`conclude`).
Any change up to then makes the copy torn, and worth nothing.

Some code goes behind torch's back (numpy arrays over a tensor's memory, ``.data``). Most of it is found before (see the
adapters), the rest by a glance at each tensor when the copy begins, and at the same places of the copy when it ends.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ckpt_callbacks.messages import warn
from ckpt_callbacks.state.memory.pages import Bytes

__all__ = ["Copier", "Copying", "Lent", "OnItsWay", "changes_of", "glance"]

PIECE = 4 << 20
"""How many bytes are copied at a time."""


@dataclass(frozen=True, slots=True, eq=False)
class Lent:
    """A tensor's bytes, borrowed; what ``changes`` gives is something else after a change."""

    data: Bytes
    changes: Callable[[], object]


class OnItsWay(Protocol):
    """Copies that devices make by themselves: see `ckpt_callbacks.state.tensors.devices.Flight`."""

    @property
    def beside(self) -> bool:
        """Whether any are made while training goes on."""

    def fence(self) -> None:
        """Let those be made before what training does next."""

    def is_whole(self) -> bool:
        """Whether nothing that they copy was changed up to now."""

    def land(self) -> None:
        """Wait for all of them."""


class Copying:
    """One such copy. One thread makes it, training gives the verdict, others wait for that.

    Args:
        pairs: what is copied, and where to.
        flight: what devices copy.
    """

    def __init__(self, pairs: Sequence[tuple[Lent, Bytes]], flight: OnItsWay) -> None:
        self._pairs, self._flight = list(pairs), flight
        self._counts = [(lent.changes, lent.changes()) for lent, _ in pairs]
        self._glances = [(out, glance(lent.data)) for lent, out in pairs]
        self._copied, self._concluded = threading.Event(), threading.Event()
        self._done = not pairs
        self._whole = not pairs and not flight.beside
        if self._done:
            self._copied.set()
        if self._whole:
            self._concluded.set()

    @property
    def unfinished(self) -> bool:
        """Whether there is no verdict yet."""
        return not self._concluded.is_set()

    def work(self) -> None:
        """Copy all of it."""
        try:
            for lent, out in self._pairs:
                for start in range(0, lent.data.nbytes, PIECE):  # leaves the interpreter to others in between
                    np.copyto(out[start : start + PIECE], lent.data[start : start + PIECE])
            self._done = True
        finally:
            self._pairs = []  # they hold tensors
            self._copied.set()

    def conclude(self) -> bool:
        """Wait until all is copied, and tell whether it is all of the moment when it was begun.

        For the thread that trains, and before it changes what is copied. It may be interrupted, and called again.
        """
        self._copied.wait()
        if not self._concluded.is_set():
            self._flight.fence()
            self._whole = (
                self._done
                and self._flight.is_whole()
                and all(changes() == before for changes, before in self._counts)
                and all(glance(out) == before for out, before in self._glances)
            )
            self._counts, self._glances = [], []
            self._concluded.set()
        return self._whole

    def verdict(self) -> bool:
        """Wait for what `conclude` gives, and until all bytes are there. For other threads."""
        self._concluded.wait()
        self._flight.land()
        return self._whole

    def land(self) -> None:
        """Wait until no device writes to the copy any more."""
        self._flight.land()


def changes_of(live: Any) -> Callable[[], object]:
    """What counts the changes of a tensor of torch's (``_version``, since torch 0.4), and tells where it is."""
    return lambda: (live._version, live.data_ptr())


def glance(data: Bytes, count: int = 256) -> bytes:
    """About so many bytes from all over a tensor; the odd distance finds low and high bytes of its numbers alike."""
    return data[:: data.nbytes // count | 1].tobytes()


class Copier:
    """A thread that copies, and makes memory ready for it; started when there is something to do."""

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def begin(self, work: Callable[[], None]) -> None:
        """Begin to do this, after what was begun before: `Copying.work`, or what comes before a copy."""
        if self._thread is None:
            # A daemon, as the writer's: what it copies is lost with the process either way.
            self._thread = threading.Thread(target=self._loop, name="ckpt-copier", daemon=True)
            self._thread.start()
        self._waiting.put(work)

    def close(self) -> None:
        """End the thread, once all is done."""
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join()
            self._thread = None

    def _loop(self) -> None:
        while (work := self._waiting.get()) is not None:
            try:
                work()
            except Exception as error:  # noqa: BLE001 - whoever waits gets a verdict, and the thread has more to do
                warn(f"a copy beside training failed, and is made again: {error!r}")
            del work
