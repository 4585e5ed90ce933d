"""Requests: what people asked to be saved, and who waits for it."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future
from typing import Any

__all__ = ["Request", "Requests"]


class Request(Future[Any]):
    """Somebody waits for a snapshot.

    Attributes:
        note: what it is for, in their words.
    """

    def __init__(self, note: str | None = None) -> None:
        super().__init__()
        self.note = note

    def answer(self, outcome: Any) -> None:
        """Hand over a snapshot or an exception, unless whoever asked no longer wants it."""
        if not self.set_running_or_notify_cancel():
            return
        if isinstance(outcome, BaseException):
            self.set_exception(outcome)
        else:
            self.set_result(outcome)


class Requests:
    """Those that no snapshot was taken for yet. Made in any thread or signal handler, taken by the one that trains."""

    def __init__(self) -> None:
        self._open: list[Request] = []

    def __bool__(self) -> bool:
        return bool(self._open)

    @property
    def note(self) -> str | None:
        """What the first of them is for."""
        return self._open[0].note if self._open else None

    def add(self, note: str | None = None) -> Request:
        """Somebody asks."""
        request = Request(note)
        self._open.append(request)
        return request

    def take(self) -> list[Request]:
        """All of them; from now on, whoever takes them answers."""
        taken, self._open = self._open, []
        return taken

    def put_back(self, taken: Iterable[Request]) -> None:
        """What they wait for was not saved after all."""
        self._open[:0] = taken
