"""Requests: what people asked to be saved, and who waits for it."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any

from ckpt_callbacks.messages import warn
from ckpt_callbacks.store import Inbox, Message, without_secret

__all__ = ["Request", "Requests"]

INTERVAL = 1.0
"""Seconds between two looks into the inbox."""

PATIENCE = 5.0
"""Seconds that the end of training waits for a look that is under way."""


class Request(Future[Any]):
    """Somebody waits for a snapshot.

    Attributes:
        note: what it is for, in their words.
        stop: whether training shall end after it.
        is_wanted: tells whether nobody has taken it back.
    """

    def __init__(
        self, note: str | None = None, *, stop: bool = False, is_wanted: Callable[[], bool] = lambda: True
    ) -> None:
        super().__init__()
        self.note, self.stop, self.is_wanted = without_secret(note) if note else note, stop, is_wanted

    def answer(self, outcome: Any) -> None:
        """Hand over a snapshot or an exception, unless whoever asked no longer wants it."""
        if not self.set_running_or_notify_cancel():
            return
        if isinstance(outcome, BaseException):
            self.set_exception(outcome)
        else:
            self.set_result(outcome)


class Requests:
    """Those that no snapshot was taken for yet. Made in any thread or signal handler, and by other processes; taken by
    the thread that trains."""

    def __init__(self) -> None:
        self._open: list[Request] = []
        self._listener: _Listener | None = None

    def __bool__(self) -> bool:
        return bool(self._open)

    def add(
        self, note: str | None = None, *, stop: bool = False, is_wanted: Callable[[], bool] = lambda: True
    ) -> Request:
        """Somebody asks; arguments as of `Request`."""
        request = Request(note, stop=stop, is_wanted=is_wanted)
        self._open.append(request)
        return request

    def take(self) -> list[Request]:
        """Those that are still wanted; from now on, whoever takes them answers."""
        if not self._open:
            return []
        taken, self._open = self._open, []
        return [request for request in taken if not request.cancelled() and request.is_wanted()]

    def put_back(self, taken: Iterable[Request]) -> None:
        """What they wait for was not saved after all."""
        self._open[:0] = taken

    def listen(self, inbox: Inbox) -> None:
        """Take what other processes ask for, from now on. A wish to stop that is older was for a run that is over."""
        self.hang_up()
        with contextlib.suppress(OSError):
            for message in inbox.messages():
                if message.stop:
                    inbox.answer(message, error="the training that it was for has ended before; this is another")
        self._listener = _Listener(inbox, self)
        self._listener.start()

    def hang_up(self) -> None:
        """Listen no more."""
        if self._listener is not None:
            self._listener.stop()
            self._listener = None


class _Listener(threading.Thread):
    """Looks into the inbox again and again, so that a training step never waits for a disk or a network."""

    def __init__(self, inbox: Inbox, requests: Requests) -> None:
        super().__init__(name="ckpt-inbox", daemon=True)
        self._inbox, self._requests = inbox, requests
        self._over = threading.Event()
        self._heard: set[str] = set()

    def run(self) -> None:
        while True:
            with contextlib.suppress(OSError):  # a disk that is away for a while
                for message in self._inbox.messages():
                    if message.name not in self._heard:
                        self._heard.add(message.name)
                        self._ask(message)
            if self._over.wait(INTERVAL):
                return

    def stop(self) -> None:
        """Return when it has ended. A disk or network that hangs must not keep the program: it is left to itself."""
        self._over.set()
        self.join(PATIENCE)
        if self.is_alive():
            warn(f"{self._inbox.path} has not answered for {PATIENCE:g} s: no longer waiting for what others ask there")

    def _ask(self, message: Message) -> None:
        def done(request: Future[Any]) -> None:
            error = None if request.cancelled() else request.exception()
            if error is not None or request.cancelled():
                self._inbox.answer(message, error=str(error or "cancelled"))
            else:
                self._inbox.answer(message, id=request.result().id)

        wanted = functools.partial(self._inbox.holds, message)
        self._requests.add(message.note, stop=message.stop, is_wanted=wanted).add_done_callback(done)
