"""Signals: remember that the process was asked to leave, until a clean boundary is reached."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

__all__ = ["LeaveRequest", "exit_code"]


def exit_code(number: int) -> int:
    """The exit code by which shells and schedulers know that a signal ended a process."""
    return 128 + number


class LeaveRequest:
    """Notes SIGTERM while a fit runs.

    The first signal is noted; a second one is passed to the handler that was there before, so that an impatient
    sender is obeyed. Only the main thread may install handlers: elsewhere this object notes nothing.

    Args:
        still_running: tells whether the fit is still there; once it is gone signals go straight to the handler before.
    """

    def __init__(self, still_running: Callable[[], bool]) -> None:
        self.signal: signal.Signals | None = None
        self._still_running = still_running
        self._before: Any = None
        self._installed = False

    def install(self) -> None:
        """Start to listen."""
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._handle)
            self._installed = True

    def remove(self) -> None:
        """Put the handler back that was there before, unless somebody replaced ours meanwhile."""
        if self._installed and signal.getsignal(signal.SIGTERM) == self._handle:
            signal.signal(signal.SIGTERM, signal.SIG_DFL if self._before is None else self._before)
        self._installed = False

    def pass_on(self) -> None:
        """Do now what the noted signal would have done: the program's own handler decides; without one, leave.

        Raises:
            SystemExit: with the conventional exit code.
        """
        number = self.signal
        self.remove()
        if number is None or self._before == signal.SIG_IGN:
            return
        if not callable(self._before) or self._before is signal.default_int_handler:
            raise SystemExit(exit_code(number))
        self.signal = None
        self._before(number, None)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal is None and self._still_running():
            self.signal = signal.Signals(number)
            return
        self.remove()
        if callable(self._before):
            self._before(number, frame)
        elif self._before != signal.SIG_IGN:
            signal.raise_signal(number)
