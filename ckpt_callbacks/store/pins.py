"""Pins: the snapshots that no rule drops. A file for each in ``pins/``, named as the snapshot, with a note in it.

Anybody may pin at any time, with `touch` as well: no lock is needed, and whoever deletes looks before and after.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from ckpt_callbacks.errors import StoreError
from ckpt_callbacks.store.files import disk
from ckpt_callbacks.store.integrity import listed
from ckpt_callbacks.store.manifest import plain_name
from ckpt_callbacks.store.remedies import remedy
from ckpt_callbacks.store.writing import DurableFiles

__all__ = ["Pins"]

_LONGEST_NOTE = 64 << 10


class Pins:
    """The pins of one run.

    Args:
        path: their directory.
        files: write them.
    """

    def __init__(self, path: Path, files: DurableFiles) -> None:
        self.path, self._files = path, files

    def make_ready(self) -> None:
        """Have the directory, so that `touch` works. OSError: it can't be made."""
        self._files.make_own(self.path)

    def notes(self) -> dict[str, str | None]:
        """Pinned ids -> the note given with the pin, or None."""
        found: dict[str, str | None] = {}
        for entry in listed(self.path):
            if plain_name(entry.name):
                with contextlib.suppress(FileNotFoundError):  # unpinned this very moment
                    found[entry.name] = _note(entry.path)
        return found

    def has(self, id: str) -> bool:
        """Whether one is pinned. OSError: that can't be known now."""
        return disk.lexists(self.path / id)

    def may_have(self, id: str) -> bool:
        """The same; taken for pinned where that can't be known."""
        try:
            return self.has(id)
        except OSError:
            return True

    def add(self, id: str, note: str | None) -> None:
        """Pin one. StoreError: it can't be done."""
        try:
            self.make_ready()
            self._files.write_in_place(self.path / id, note or "")
        except OSError as error:
            what = "is pinned, but without its note" if self.may_have(id) else "is not pinned"
            raise StoreError(f"{self.path / id} can't be written: {error}, so {id} {what}. {remedy(error)}.") from error

    def remove(self, id: str) -> None:
        """Unpin one, if it is pinned. StoreError: it can't be done."""
        try:
            disk.unlink(self.path / id)
        except FileNotFoundError:
            return
        except OSError as error:
            raise StoreError(
                f"{self.path / id} can't be removed: {error}, so {id} stays pinned. {remedy(error)}."
            ) from error


def _note(path: str) -> str | None:
    """What a pin says. That it is there is what counts, be it unreadable."""
    try:
        return disk.read(path, _LONGEST_NOTE).decode(errors="replace").strip() or None
    except FileNotFoundError:
        raise
    except OSError:
        return None
