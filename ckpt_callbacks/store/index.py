"""The index of a run: its manifests in memory, of which only those are read again that changed on disk."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from weakref import WeakValueDictionary

from ckpt_callbacks.errors import CorruptSnapshotError, StoreError, UnreachableError
from ckpt_callbacks.store import manifest as manifests
from ckpt_callbacks.store.files import disk
from ckpt_callbacks.store.integrity import read_manifest, twice, unreadable
from ckpt_callbacks.store.manifest import Manifest
from ckpt_callbacks.store.remedies import told

__all__ = ["LINKS", "Index", "checked"]

LINKS = ("best", "latest")
"""The names under which a run points at snapshots."""

_LOOKS = 100
_FAR = 1 << 52  # no run saves so often: whoever wrote that wants the next number to be one that can't be stored

_indexes: WeakValueDictionary[str, Index] = WeakValueDictionary()


class Index:
    """What is known of a run's snapshots; one for all that look at the same run in this process. From any thread.

    Args:
        root: the run's directory.

    Attributes:
        turn: what changes the run goes one at a time (two callbacks in one trainer may share it).
        sequence: the highest that was ever seen, of those that a run can get to.
        news: grows when a snapshot came, went or changed by somebody else's doing.
    """

    def __init__(self, root: str) -> None:
        self._root, self._path = root, os.path.join(root, "snapshots")
        self._known: dict[str, tuple[tuple[int, int, int] | None, Manifest | StoreError]] = {}
        self._lock = threading.Lock()
        self.turn = threading.RLock()
        self.sequence = self.news = 0

    @classmethod
    def of(cls, root: Path) -> Index:
        """That of a run, whichever way leads to it."""
        path = os.path.realpath(root)
        return _indexes.setdefault(path, cls(path))

    def look(self) -> dict[str, Manifest | StoreError]:
        """Every visible manifest, parsed or why not, as it is now: each is asked whether it changed.

        A run that saves and deletes may have dropped all that was listed before it is read: then it is listed again,
        so that a reader never takes a run that always has snapshots for an empty one.

        Raises:
            StoreError: it can't be known now what there is.
        """
        names: list[str] | None = None
        found: set[str] = set()
        for _ in range(_LOOKS):
            names, before = self._names(), names
            if names == before:  # what has no manifest is no snapshot
                break
            with self._lock:
                found = {name for name in names if self._look_at(name)}
            if len(found) == len(names):
                break
        with self._lock:
            self._drop(self._known.keys() - found)
            return {id: known for id, (_, known) in self._known.items()}

    def glance(self) -> None:
        """See which snapshots came and went. The run's own process alone changes their manifests, so it need not ask
        each: that would take the longer the more there are.

        Raises:
            StoreError: that can't be known now.
        """
        with told(f"{self._path} can't be listed"):
            names = set(twice(lambda: disk.names(self._path)))
        with self._lock:
            self._drop(self._known.keys() - names)
            for name in names - self._known.keys():
                if disk.readlink(os.path.join(self._path, name)) is None:
                    self._look_at(name)

    def _names(self) -> list[str]:
        """What may be a snapshot, by its name; a link's files are another run's.

        A network's listing may lag behind what can be opened, so what the links name is looked for as well: a resume
        elsewhere must not miss the newest.
        """
        with told(f"{self._path} can't be listed"):
            listed = {entry.name: entry.is_symlink() for entry in twice(lambda: disk.list(self._path))}
        linked = [Path(target).name for name in LINKS if (target := disk.readlink(os.path.join(self._root, name)))]
        unlisted = [id for id in linked if id not in listed and manifests.plain_name(id)]
        return [name for name, link in listed.items() if not link and manifests.plain_name(name)] + unlisted

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

    def _drop(self, unlisted: set[str]) -> None:
        """Forget what is there no more; what a listing only does not show yet is."""
        for id in unlisted:
            if not self._look_at(id):
                del self._known[id]
                self.news += 1

    def _look_at(self, name: str) -> bool:
        """Read a manifest if it is not known as it is; tell whether there is one. What was refused is read again."""
        path = f"{self._path}/{name}/{manifests.NAME}"
        if not manifests.plain_name(name):
            return False
        try:
            status = twice(lambda: disk.stat(path))
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            self._known[name] = None, unreadable(path, error)
            return True
        stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
        before, known = self._known.get(name, (None, None))
        if before != stamp or isinstance(known, UnreachableError):
            try:
                known = self._read(name)
            except FileNotFoundError:  # deleted this very moment
                return False
            self._known[name] = stamp, known
            self.news += before != stamp
            if isinstance(known, Manifest):
                self.sequence = max(self.sequence, known.sequence if known.sequence < _FAR else 0)
        return True

    def _read(self, id: str) -> Manifest | StoreError:
        try:
            return checked(read_manifest(f"{self._path}/{id}"), id)
        except StoreError as error:
            return error


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
