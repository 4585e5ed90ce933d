"""Links: ``best`` and ``latest``, for people and scripts. A cache: where none can be made, there is none."""

from __future__ import annotations

import contextlib
import stat
from pathlib import Path
from typing import Literal

from ckpt_callbacks.door import kind_of
from ckpt_callbacks.errors import StoreError
from ckpt_callbacks.messages import warn
from ckpt_callbacks.store.aside import Aside
from ckpt_callbacks.store.files import disk
from ckpt_callbacks.store.index import LINKS
from ckpt_callbacks.store.writing import TEMPORARY

__all__ = ["Links"]


class Links:
    """The links of one run.

    Args:
        root: the run's directory.
        aside: takes what lies in their places.
    """

    def __init__(self, root: Path, aside: Aside) -> None:
        self._root, self._aside = root, aside
        self._stuck: set[Path] = set()  # what lies in the place of links, and can't be moved

    def point(self, name: Literal["best", "latest"], id: str) -> bool:
        """Point one at a snapshot; whether it had to be made. Only for the lock's holder.

        What is no link in its place, such as the directory that copying programs make of it, is set aside.
        """
        link, temporary = self._root / name, self._root / f".{name}{TEMPORARY}"
        if disk.readlink(link) == _target(id):
            return False
        try:
            if disk.lexists(temporary):
                disk.unlink(temporary)
            disk.symlink(_target(id), temporary)
            if disk.lexists(link) and disk.readlink(link) is None:
                self._displace(link)
            disk.rename(temporary, link)
        except (OSError, StoreError):
            with contextlib.suppress(OSError):
                disk.unlink(temporary)
            return False
        return True

    def _displace(self, link: Path) -> None:
        """Set aside what lies in the place of a link, and say so; that it can't be moved is said once."""
        try:
            aside = self._aside.take(link).relative_to(self._root)
        except (OSError, StoreError) as error:
            if link not in self._stuck:
                self._stuck.add(link)
                warn(f"{link} is no link any more, so it grows stale: what lies there can't be set aside ({error})")
            raise
        warn(
            f"{link} is no link any more (a copy that follows links makes directories of them): what lay there is set "
            f"aside as {aside}, and may be deleted"
        )

    def displaced(self) -> dict[str, str]:
        """The links in whose place lies something else -> what."""
        found = {}
        for name in LINKS:
            with contextlib.suppress(OSError):
                mode = disk.stat(self._root / name).st_mode
                if not stat.S_ISLNK(mode):
                    found[name] = kind_of(mode) or "a file"
        return found

    def forget(self, id: str) -> None:
        """Remove those that point at a snapshot which is going away. OSError: one can't be removed."""
        for name in LINKS:
            if disk.readlink(self._root / name) == _target(id):
                disk.unlink(self._root / name)


def _target(id: str) -> str:
    return f"snapshots/{id}"
