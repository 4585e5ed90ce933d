"""The index of a run: its manifests in memory, of which only those are read again that changed on disk."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from weakref import WeakValueDictionary

from ckpt_callbacks.errors import CorruptSnapshotError, StoreError
from ckpt_callbacks.store import manifest as manifests
from ckpt_callbacks.store.files import disk
from ckpt_callbacks.store.integrity import read_manifest
from ckpt_callbacks.store.manifest import Manifest

__all__ = ["Index", "checked"]

_indexes: WeakValueDictionary[str, Index] = WeakValueDictionary()


class Index:
    """What is known of a run's snapshots; one for all that look at the same run in this process. From any thread.

    Args:
        root: the run's directory.

    Attributes:
        turn: what changes the run goes one at a time (two callbacks in one trainer may share it).
        sequence: the highest that was ever seen.
        news: grows when a snapshot came, went or changed by somebody else's doing.
    """

    def __init__(self, root: str) -> None:
        self._path = os.path.join(root, "snapshots")
        self._known: dict[str, tuple[tuple[int, int, int], Manifest | str]] = {}
        self._lock = threading.Lock()
        self.turn = threading.RLock()
        self.sequence = self.news = 0

    @classmethod
    def of(cls, root: Path) -> Index:
        """That of a run, whichever way leads to it."""
        path = os.path.realpath(root)
        return _indexes.setdefault(path, cls(path))

    def look(self) -> dict[str, Manifest | str]:
        """Every visible manifest, parsed or why not, as it is now: each is asked whether it changed."""
        entries = disk.list(self._path)
        with self._lock:
            # A link's files are another run's.
            found = {entry.name for entry in entries if not entry.is_symlink() and self._look_at(entry.name)}
            self._drop(self._known.keys() - found)
            return {id: known for id, (_, known) in self._known.items()}

    def glance(self) -> None:
        """See which snapshots came and went. The run's own process alone changes their manifests, so it need not ask
        each: that would take the longer the more there are."""
        names = set(disk.names(self._path))
        with self._lock:
            self._drop(self._known.keys() - names)
            for name in names - self._known.keys():
                if disk.readlink(os.path.join(self._path, name)) is None:
                    self._look_at(name)

    def get(self, id: str | None) -> Manifest | None:
        """What is known of one."""
        with self._lock:
            _, known = self._known.get(id or "", (None, None))
        return known if isinstance(known, Manifest) else None

    def forget(self, id: str) -> None:
        """It is another now, or gone."""
        with self._lock:
            self._known.pop(id, None)

    def see(self, id: str) -> None:
        """It is new, or another, by our doing."""
        with self._lock:
            news = self.news
            self._look_at(id)
            self.news = news

    def _drop(self, gone: set[str]) -> None:
        self.news += len(gone)
        for id in gone:
            del self._known[id]

    def _look_at(self, name: str) -> bool:
        """Read a manifest if it is not known as it is; tell whether there is one."""
        if name.startswith("."):
            return False
        try:
            status = disk.stat(f"{self._path}/{name}/{manifests.NAME}")
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            self._known[name] = (0, 0, 0), f"{manifests.NAME} can't be read: {error.strerror}."
            return True
        stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
        if name not in self._known or self._known[name][0] != stamp:
            known = self._read(name)
            self._known[name] = stamp, known
            self.news += 1
            if isinstance(known, Manifest):
                self.sequence = max(self.sequence, known.sequence)
        return True

    def _read(self, id: str) -> Manifest | str:
        try:
            return checked(read_manifest(f"{self._path}/{id}"), id)
        except (StoreError, OSError) as error:
            return str(error)


def checked(manifest: Manifest, id: str) -> Manifest:
    """The manifest of the directory of that name.

    Raises:
        CorruptSnapshotError: it is another one's.
    """
    if manifest.id != id:
        raise CorruptSnapshotError(
            f"{manifests.NAME} is that of another snapshot: expected {id}, found {manifest.id}. "
            "Give the directory the name that its manifest says."
        )
    return manifest
