"""Aside: where damaged snapshots are moved, and what else lies in a place that is needed. Nothing is deleted there."""

from __future__ import annotations

import itertools
from pathlib import Path

from ckpt_callbacks.store.files import disk
from ckpt_callbacks.store.integrity import listed
from ckpt_callbacks.store.writing import DurableFiles

__all__ = ["Aside"]


class Aside:
    """The directory ``damaged/`` of one run. Only the holder of its lock moves anything there.

    Args:
        path: the directory.
        files: make it, and its names durable.
    """

    def __init__(self, path: Path, files: DurableFiles) -> None:
        self.path, self._files = path, files

    def take(self, path: Path) -> Path:
        """Move anything there, under a name that nothing has yet; where it lies then.

        Raises:
            OSError, StoreError: it can't be moved.
        """
        self._files.make_own(self.path)
        taken = {entry.name for entry in listed(self.path)}
        names = (path.name if number == 1 else f"{path.name}+{number}" for number in itertools.count(1))
        target = self.path / next(name for name in names if name not in taken)
        disk.rename(path, target)
        self._files.sync_directory(self.path)
        self._files.sync_directory(path.parent)
        return target

    def directories(self) -> dict[str, Path]:
        """The directories that lie there, by name."""
        entries = [entry for entry in listed(self.path) if entry.is_dir(follow_symlinks=False)]
        return {entry.name: Path(entry.path) for entry in entries}
