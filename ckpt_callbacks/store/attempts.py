"""Attempts to resume: how often in a row a process died while it loaded the same snapshot.

A snapshot may verify and kill every process that loads it all the same: it needs more memory than there is, or meets a
bug in a driver. A small file says who is about to be loaded; a process that lives on removes it.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from ckpt_callbacks.store.files import disk

__all__ = ["LIMIT", "Attempts"]

LIMIT = 3
"""So many deaths in a row, and a snapshot is stepped over."""


class Attempts:
    """What is known of attempts to resume in one run. Nothing here may stand in the way of a resume.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def last(self) -> tuple[str | None, int]:
        """The id of the snapshot that a process died of last, and how many did in a row."""
        try:
            found = json.loads(disk.read(self.path, 64 << 10))
            return str(found["id"]), int(found["deaths"])
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None, 0

    def begin(self, id: str) -> None:
        """This process is about to load it: until `over`, it counts as one that died."""
        last, deaths = self.last()
        count = deaths + 1 if last == id else 1
        with contextlib.suppress(OSError):
            descriptor = disk.open_update(self.path)
            try:
                disk.truncate(descriptor)
                disk.write(descriptor, json.dumps({"id": id, "deaths": count}).encode())
            finally:
                disk.close(descriptor)

    def over(self) -> None:
        """It lives: the state is in its place, or an error was told."""
        with contextlib.suppress(OSError):
            disk.unlink(self.path)
