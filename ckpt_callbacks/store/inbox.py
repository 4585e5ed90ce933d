"""The inbox of a run, ``requests/``: what other processes ask of the one that trains. Plain files, no server.

A request is a JSON file that appears at once, by rename. Who trains takes it, and removes it when it is answered. If
the sender waits, an answer is left beside it, which the sender removes.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ckpt_callbacks.errors import StoreError
from ckpt_callbacks.store.files import disk
from ckpt_callbacks.store.provenance import note_without_secret
from ckpt_callbacks.store.remedies import remedy
from ckpt_callbacks.store.writing import TEMPORARY, DurableFiles

__all__ = ["Inbox", "Message"]

MAX_BYTES = 64 << 10
DAY = 24 * 3600
"""Seconds after which nobody waits any more: whoever asks needs no lock, so what is younger may be in use."""

_REQUEST, _ANSWER = ".request", ".answer"


@dataclass(frozen=True, slots=True)
class Message:
    """A request from another process.

    Attributes:
        name: what it is called in the inbox.
        note: what the snapshot is for, or None; at most 2,000 characters.
        stop: whether training shall end after it.
        wants_answer: whether the sender waits.
    """

    name: str
    note: str | None = None
    stop: bool = False
    wants_answer: bool = False


class Inbox:
    """The requests to one run.

    Args:
        root: the run's directory.
    """

    def __init__(self, root: Path) -> None:
        self.path = root / "requests"
        self._files = DurableFiles("full")  # an answer lasts before its request goes

    def post(self, note: str | None = None, *, stop: bool = False, wants_answer: bool = False) -> str:
        """Leave a request; its name.

        Raises:
            StoreError: it can't be written.
        """
        note = note_without_secret(note)
        name = f"{time.time_ns():020d}-{secrets.token_hex(3)}"
        try:
            self._files.make_own(self.path)
            self._write(name + _REQUEST, {"note": note, "stop": stop, "wants_answer": wants_answer})
        except OSError as error:
            raise StoreError(
                f"{self.path} can't be written ({error}), so nothing was asked for. {remedy(error)}."
            ) from error
        return name

    def messages(self) -> list[Message]:
        """What nobody has answered yet, oldest first. What can't be read is no request."""
        return [
            Message(name, _note(found.get("note")), found.get("stop") is True, found.get("wants_answer") is True)
            for entry in disk.list(self.path)
            if entry.name.endswith(_REQUEST) and not entry.name.startswith(".")
            if (found := self._read(name := entry.name.removesuffix(_REQUEST), _REQUEST)) is not None
        ]

    def answer(self, message: Message, **answer: Any) -> None:
        """Say what came of a request, if somebody waits, and remove it. A disk that refuses costs the answer only."""
        with contextlib.suppress(OSError):
            if message.wants_answer and self.holds(message):
                self._write(message.name + _ANSWER, answer)
        with contextlib.suppress(OSError):
            disk.unlink(self.path / (message.name + _REQUEST))

    def holds(self, message: Message) -> bool:
        """Whether a request is still there, as far as can be known: its sender may have withdrawn it."""
        try:
            return disk.lexists(self.path / (message.name + _REQUEST))
        except OSError:
            return True

    def take_answer(self, name: str) -> Mapping[str, Any] | None:
        """What came of the request of that name; None as long as nobody knows."""
        found = self._read(name, _ANSWER)
        if found is not None:
            with contextlib.suppress(OSError):
                disk.unlink(self.path / (name + _ANSWER))
        return found

    def withdraw(self, name: str) -> None:
        """Ask no more."""
        with contextlib.suppress(OSError):
            disk.unlink(self.path / (name + _REQUEST))

    def clean(self) -> None:
        """Remove what nobody comes back for, a day after: answers, and what a crash left half-written. What the disk
        refuses to show or to remove now is left to the next start."""
        with contextlib.suppress(OSError):
            asked = {message.name + _REQUEST for message in self.messages()}
            for entry in disk.list(self.path):
                if entry.name.endswith((_REQUEST, _ANSWER, TEMPORARY)) and entry.name not in asked:
                    self._remove_old(entry.path)

    def _remove_old(self, path: str) -> None:
        with contextlib.suppress(OSError):
            if time.time() - disk.stat(path).st_mtime > DAY:
                disk.unlink(path)

    def _read(self, name: str, kind: str) -> dict[str, Any] | None:
        try:
            found = json.loads(disk.read(self.path / (name + kind), MAX_BYTES))
        except (OSError, ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None

    def _write(self, name: str, content: Mapping[str, Any]) -> None:
        self._files.write_small(self.path / name, json.dumps(content).encode())


def _note(value: Any) -> str | None:
    return note_without_secret(value) if isinstance(value, str) else None
