"""The writer: one background thread that makes staged snapshots durable, in order."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

__all__ = ["Writer"]

_AT_ONCE = 2
"""How many jobs there may be that have not ended: one that is run, and one that waits."""

_Job = tuple[Callable[[], Any], "Future[Any]"]


class Writer:
    """Runs jobs one after the other, in the background or at once.

    At most one job is being run and one waits; `make_room` and `submit` block while both places are taken, so memory
    holds two staged snapshots at worst and a slow disk lengthens the interval between saves instead of a queue.

    Attributes:
        background: ``False`` runs every job inside `submit`.
    """

    def __init__(self, background: bool = True) -> None:
        self.background = background
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._unfinished: deque[Future[Any]] = deque()  # the last of them may have ended
        self._thread: threading.Thread | None = None

    def submit(self, work: Callable[[], Any]) -> Future[Any]:
        """Queue ``work``; its result or exception arrives in the future that is returned."""
        future: Future[Any] = Future()
        if not self.background or not self._runs():
            try:
                future.set_result(work())
            except Exception as error:  # noqa: BLE001 - handed to whoever asks the future; Ctrl-C is not ours to keep
                future.set_exception(error)
            return future
        self.make_room()
        self._jobs.put((work, future))
        self._unfinished.append(future)
        return future

    def _runs(self) -> bool:
        """Whether the thread runs: it is started, but not by an interpreter that is going down."""
        if self._thread is None:
            # A daemon: an interpreter that dies of an exception must not hang on a slow disk. What was not
            # committed by then is an attempt that the next run cleans up.
            thread = threading.Thread(target=self._loop, name="ckpt-writer", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                return False
            self._thread = thread
        return True

    def make_room(self) -> None:
        """Return when the next `submit` need not wait (jobs are submitted from one thread)."""
        while len(self._unfinished) >= _AT_ONCE:
            self._unfinished[0].exception()
            self._unfinished.popleft()

    def wait(self) -> None:
        """Return when all that was submitted has ended, well or badly (jobs run in order: the last one tells)."""
        if self._unfinished:
            self._unfinished[-1].exception()

    @property
    def busy(self) -> bool:
        """Whether something that was submitted has not ended."""
        return bool(self._unfinished) and not self._unfinished[-1].done()

    def close(self) -> None:
        """Wait for everything and end the thread. A closed writer may be used again."""
        self.wait()
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()
            self._thread = None

    def _loop(self) -> None:
        while (job := self._jobs.get()) is not None:
            _run(*job)


def _run(work: Callable[[], Any], future: Future[Any]) -> None:
    """Move the outcome of ``work`` into ``future``, whatever it is: the thread must survive a full disk."""
    try:
        result = work()
    except BaseException as error:  # noqa: BLE001 - handed to whoever asks the future
        future.set_exception(error)
    else:
        future.set_result(result)
