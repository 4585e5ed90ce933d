"""Requests: what people asked to be saved, and who waits for it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable
from concurrent.futures import Future
from typing import Any

from ckpt_callbacks.store import Inbox, Message

__all__ = ["Request", "Requests"]

INTERVAL = 1.0
"""Seconds between two looks into the inbox."""


class Request(Future[Any]):
    """Somebody waits for a snapshot.

    Attributes:
        note: what it is for, in their words.
        stop: whether training shall end after it.
    """

    def __init__(self, note: str | None = None, *, stop: bool = False) -> None:
        super().__init__()
        self.note, self.stop = note, stop

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

    @property
    def note(self) -> str | None:
        """What the first of them is for that says so."""
        return next((request.note for request in list(self._open) if request.note), None)

    @property
    def stops(self) -> bool:
        """Whether one of them asks to end training."""
        return any(request.stop for request in list(self._open))

    def add(self, note: str | None = None, *, stop: bool = False) -> Request:
        """Somebody asks."""
        request = Request(note, stop=stop)
        self._open.append(request)
        return request

    def take(self) -> list[Request]:
        """All of them; from now on, whoever takes them answers."""
        taken, self._open = self._open, []
        return taken

    def put_back(self, taken: Iterable[Request]) -> None:
        """What they wait for was not saved after all."""
        self._open[:0] = taken

    def listen(self, inbox: Inbox) -> None:
        """Take what other processes ask for, from now on."""
        self.hang_up()
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
        self._over.set()
        self.join()

    def _ask(self, message: Message) -> None:
        def done(request: Future[Any]) -> None:
            error = None if request.cancelled() else request.exception()
            if error is not None or request.cancelled():
                self._inbox.answer(message, error=str(error or "cancelled"))
            else:
                self._inbox.answer(message, id=request.result().id)

        self._requests.add(message.note, stop=message.stop).add_done_callback(done)
