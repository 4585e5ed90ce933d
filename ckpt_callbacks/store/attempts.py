"""Attempts to resume, or to restore the best weights: how often in a row a process died of the same snapshot.

A snapshot may verify and kill every process that loads it all the same: it needs more memory than there is, or meets a
bug in a driver. A small file says who is about to be loaded; a process that lives on removes it. Another one says which
were stepped over for that: they stay so, however often the process that loads another one dies as well.

A death counts while the snapshot's bytes are read or put back. In between the user's code runs, and draws the batches
of its epoch again, which may take longer than a scheduler lets a job live: what dies there says nothing of a snapshot.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from ckpt_callbacks.store.files import disk
from ckpt_callbacks.store.writing import DurableFiles

__all__ = ["LIMIT", "Attempts"]

LIMIT = 3
"""So many deaths in a row, and a snapshot is stepped over."""

_KILLABLE = DurableFiles("none")
"""Writes what a killed process must leave behind; after a power cut one death too many does no harm."""


class Attempts:
    """What is known of attempts to load snapshots of one run. Nothing here may stand in the way of a resume.

    Args:
        path: the file of the one that is loaded.
        spared: the file of those that are stepped over.
        files: writes it, for a snapshot may take the whole machine down.
    """

    def __init__(self, path: Path, spared: Path, files: DurableFiles) -> None:
        self.path, self._spared, self._files = path, spared, files
        self._under_way: tuple[str, int] | None = None  # who is loaded by this process, and how many died of it before

    def last(self) -> tuple[str | None, int]:
        """The id of the snapshot that a process died of last, and how many did in a row."""
        found = _read(self.path)
        try:
            return str(found["id"]), int(found["deaths"])
        except (ValueError, TypeError, KeyError, OverflowError):
            return None, 0

    def begin(self, id: str) -> None:
        """This process is about to load it: until `pause` or `over`, it counts as one that died."""
        last, deaths = self.last()
        self._under_way = id, deaths if last == id else 0
        self._go_on()

    def pause(self) -> None:
        """What comes now is none of the snapshot's doing: this process counts no more, those that died before do."""
        if self._under_way is not None:
            self._note(_KILLABLE, *self._under_way)

    @contextlib.contextmanager
    def loading(self) -> Iterator[None]:
        """Meanwhile the snapshot that was begun with is put back: it counts again."""
        self._go_on()
        try:
            yield
        finally:
            self.pause()

    def _go_on(self) -> None:
        if self._under_way is not None:
            id, before = self._under_way
            self._note(self._files, id, before + 1)

    def _note(self, files: DurableFiles, id: str, deaths: int) -> None:
        with contextlib.suppress(OSError):
            files.write_small(self.path, json.dumps({"id": id, "deaths": deaths}).encode())

    def over(self) -> None:
        """It lives: the state is in its place, or an error was told."""
        self._under_way = None
        with contextlib.suppress(OSError):
            disk.unlink(self.path)

    def spared(self) -> dict[str, int]:
        """The ids that are stepped over -> how many processes died of each, those of just now included."""
        found = {id: count for id, count in _read(self._spared).items() if type(count) is int}
        last, deaths = self.last()
        return {**found, last: deaths} if last is not None and deaths >= LIMIT else found

    def settle(self, there: Collection[str]) -> dict[str, int]:
        """The ids among those that are ``there`` that are stepped over, and stay so -> as of `spared`."""
        deadly = {id: deaths for id, deaths in self.spared().items() if id in there}
        self.spare(deadly)  # before the attempt to load another one takes the place of the last
        return deadly

    def spare(self, ids: Mapping[str, int]) -> None:
        """Step over these from now on, until somebody names them or repairs the run."""
        with contextlib.suppress(OSError):
            if ids and ids != _read(self._spared):
                self._files.write_small(self._spared, json.dumps(ids).encode())
            elif not ids and disk.lexists(self._spared):
                disk.unlink(self._spared)

    def forgive_all(self) -> list[str]:
        """Try every one again that was stepped over; their ids."""
        return [id for id in self.spared() if self.forgive(id)]

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
