"""Attempts to resume: how often in a row a process died while it loaded the same snapshot.

A snapshot may verify and kill every process that loads it all the same: it needs more memory than there is, or meets a
bug in a driver. A small file says who is about to be loaded; a process that lives on removes it. Another one says which
were stepped over for that: they stay so, however often the process that loads another one dies as well.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ckpt_callbacks.store.files import disk

__all__ = ["LIMIT", "Attempts"]

LIMIT = 3
"""So many deaths in a row, and a snapshot is stepped over."""


class Attempts:
    """What is known of attempts to resume in one run. Nothing here may stand in the way of a resume.

    Args:
        path: the file of the one that is loaded.
        spared: the file of those that are stepped over.
    """

    def __init__(self, path: Path, spared: Path) -> None:
        self.path, self._spared = path, spared

    def last(self) -> tuple[str | None, int]:
        """The id of the snapshot that a process died of last, and how many did in a row."""
        found = _read(self.path)
        try:
            return str(found["id"]), int(found["deaths"])
        except (ValueError, TypeError, KeyError, OverflowError):
            return None, 0

    def begin(self, id: str) -> None:
        """This process is about to load it: until `over`, it counts as one that died."""
        last, deaths = self.last()
        _write(self.path, {"id": id, "deaths": deaths + 1 if last == id else 1})

    def over(self) -> None:
        """It lives: the state is in its place, or an error was told."""
        with contextlib.suppress(OSError):
            disk.unlink(self.path)

    def spared(self) -> dict[str, int]:
        """The ids that are stepped over -> how many processes died of each, those of just now included."""
        found = {id: count for id, count in _read(self._spared).items() if type(count) is int}
        last, deaths = self.last()
        return {**found, last: deaths} if last is not None and deaths >= LIMIT else found

    def spare(self, ids: Mapping[str, int]) -> None:
        """Step over these from now on, until somebody names them or repairs the run."""
        if ids != _read(self._spared):
            _write(self._spared, ids)

    def forgive(self, id: str) -> bool:
        """Try it again, as if no process had died of it; tell whether it was stepped over."""
        spared = self.spared()
        if spared.pop(id, None) is None:
            return False
        if self.last()[0] == id:
            self.over()
        self.spare(spared)
        return True


def _read(path: Path) -> dict[str, Any]:
    """What a file says; nothing if it was torn, as a process died."""
    try:
        found = json.loads(disk.read(path, 64 << 10))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(path: Path, document: Mapping[str, Any]) -> None:
    """An empty document needs no file."""
    with contextlib.suppress(OSError):
        if not document:
            disk.unlink(path)
            return
        descriptor = disk.open_update(path)
        try:
            disk.truncate(descriptor)
            disk.write(descriptor, json.dumps(document).encode())
        finally:
            disk.close(descriptor)
