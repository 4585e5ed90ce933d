"""Signals: remember that the process was asked to save or to leave, until a clean boundary is reached."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any

from ckpt_callbacks.messages import say

__all__ = ["Handler", "Obey", "Signals", "call", "exit_code", "passing_on"]

Handler = Callable[[int, FrameType | None], Any]
"""What `signal.signal` takes."""

Obey = Callable[[Handler, int, FrameType | None], None]
"""Calls a program's own handler, and sees to it that the signal is obeyed."""

ECHO_SECONDS = 1.0
"""A scheduler signals a whole group and a script passes on what it got: what comes twice within this time came once.
Not so Ctrl-C, which a person types."""


def exit_code(number: int) -> int:
    """The exit code by which shells and schedulers know that a signal ended a process."""
    return 128 + number


def call(handler: Handler, number: int, frame: FrameType | None) -> None:
    """The handler decides."""
    handler(number, frame)


@contextlib.contextmanager
def passing_on(number: int, obey: Obey) -> Iterator[None]:
    """Meanwhile ``obey`` calls the handler of a signal that the program has, whoever listens to it else."""
    before = signal.getsignal(number)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        obey(before, number, frame)

    signal.signal(number, handle)
    try:
        yield
    finally:
        if signal.getsignal(number) == handle:  # else somebody has replaced it
            signal.signal(number, before)


_waiting: deque[Callable[[], None]] = deque()


@ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)  # type: ignore[untyped-decorator]
def _do_what_waits(_: object) -> int:
    while _waiting:
        _waiting.popleft()()
    return 0


def _on_main_thread(act: Callable[[], None]) -> None:
    """Do it now, or let the main thread do it between two of its instructions, as it runs handlers of signals.

    Python has no other door to that thread: a signal to ourselves could swallow one of its kind that comes meanwhile.
    """
    if threading.current_thread() is threading.main_thread():
        act()
    else:
        _waiting.append(act)
        ctypes.pythonapi.Py_AddPendingCall(_do_what_waits, None)


class Signals:
    """Notes signals while a fit runs.

    A signal to leave is noted once; when another comes before it was answered, and is no echo of it, it is passed to
    the handler that was there before, so that an impatient sender is obeyed. Only the main thread may install
    handlers: elsewhere this object notes nothing.

    Args:
        wanted: names of the signals to listen to -> whether the process shall leave then.
        still_running: tells whether the fit is still there and has something to save, given the frame that a signal
            came in; else signals to leave go straight to the handler before.
        obey: calls a program's own handler, and sees to it that the signal is obeyed.

    Attributes:
        came: the signal that was noted, and is not answered yet.
        insisted: whether another came before that, and was obeyed at once.
    """

    def __init__(
        self,
        wanted: Mapping[str, bool],
        still_running: Callable[[FrameType | None], bool],
        obey: Obey = call,
    ) -> None:
        self.came: signal.Signals | None = None
        self.insisted = False
        self._since = 0.0  # when it came
        known = {getattr(signal, name, None): leave for name, leave in wanted.items()}
        self._wanted = {number: leave for number, leave in known.items() if isinstance(number, signal.Signals)}
        self._still_running, self._obey = still_running, obey
        # Kept after `remove`: a handler that was installed over ours still calls us.
        self._before: dict[int, Any] = {}
        self._installed = False
        self._process = os.getpid()
        self._children: Any = None  # the handler that hears of children's deaths, while it is held back

    def install(self) -> None:
        """Start to listen. Safe to repeat."""
        if threading.current_thread() is threading.main_thread() and not self._installed:
            self._before = {number: signal.signal(number, self._handle) for number in self._wanted}
            self._installed = True

    def remove(self) -> None:
        """Put the handlers back that were there before, unless somebody replaced ours meanwhile.

        Such a one may still call ours, which passes all on from now on. Safe to repeat, and from any thread; the main
        thread does it.
        """
        self._installed = False
        _on_main_thread(self._put_back)

    def _put_back(self) -> None:
        self._hear_of_children()
        for number in self._before:
            if signal.getsignal(number) == self._handle:
                before = self._handler_before(number)
                signal.signal(number, signal.SIG_DFL if before is None else before)

    def _handler_before(self, number: int) -> Any:
        """The handler that was there before, or before that one, if it is left of a fit that is gone."""
        before = self._before.get(number)
        while isinstance(left := getattr(before, "__self__", None), Signals) and not left._installed:
            before = left._before.get(number)
        return before

    @property
    def leaves(self) -> bool:
        """Whether a signal came after which the process shall leave."""
        return self.came is not None and self._wanted[self.came]

    def answer(self) -> None:
        """All is saved: do what the noted signal would have done, if it was one to leave; listen on, if that returns.

        The program's own handler decides; without one, leave, unless the signal was ignored.

        Raises:
            SystemExit: with the conventional exit code.
            KeyboardInterrupt: for Ctrl-C, as Python has it. The fit is left by either, so nothing is listened to then.
        """
        number, self.came = self.came, None
        self._hear_of_children()
        if number is None or not self._wanted[number]:
            return
        before = self._handler_before(number)
        try:
            if callable(before):
                self._obey(before, number, None)
            elif before != signal.SIG_IGN:  # as a shell has it for SIGINT, if it puts a program into the background
                raise SystemExit(exit_code(number))
        except BaseException:
            self.remove()
            raise

    def repeat(self) -> None:
        """Send the noted signal once more, if the process shall leave then: nobody listens to it here any more."""
        number = self.came
        if number is not None and self.leaves and not self.insisted:
            self.came = None
            os.kill(os.getpid(), number)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            self._handle_in_child(number)
        elif not self._installed:
            self._pass_on(number, frame, call)
        elif self._wanted[signal.Signals(number)] and not self._still_running(frame):
            self._pass_on(number, frame, self._obey)
        elif not self.leaves:
            self.came, self._since = signal.Signals(number), time.monotonic()
            self._note()
        elif self._wanted[signal.Signals(number)] and not self._is_echo(number):
            self.insisted = True
            self._pass_on(number, frame, self._obey)

    def _is_echo(self, number: int) -> bool:
        return number == self.came != signal.SIGINT and time.monotonic() < self._since + ECHO_SECONDS

    def _note(self) -> None:
        assert self.came is not None
        how = "saving at the next clean boundary"
        if self.leaves:
            how += "; a second one is obeyed at once"
            # A signal to the whole group ends a loader's workers as well. The batch that is trained on has been
            # fetched, so nobody needs them: an error about them would only stand before the boundary.
            if (deaths := getattr(signal, "SIGCHLD", None)) is not None and self._children is None:
                self._children = signal.signal(deaths, signal.SIG_DFL)
        with contextlib.suppress(RuntimeError):  # it came amid a line that is being written
            say(f"{self.came.name}: {how}")

    def _hear_of_children(self) -> None:
        if self._children is not None:
            signal.signal(signal.SIGCHLD, self._children)
            self._children = None

    def _handle_in_child(self, number: int) -> None:
        """A process that a fit forked, such as a loader's worker: SIGTERM ends it, all else is for its parent."""
        if number == signal.SIGTERM:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    def _pass_on(self, number: int, frame: FrameType | None, obey: Obey) -> None:
        before = self._handler_before(number)
        self.remove()
        if callable(before):
            obey(before, number, frame)
        elif before != signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
