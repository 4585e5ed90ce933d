"""The run lock: one process writes to a run at a time.

It is an `flock` on ``.lock`` in the run's directory, so it ends with the process, however that ends; the file's text
(pid, host, since when, command) is only for the message. Within one process the lock is counted, so a second
callback on the same run in the same program is welcome. A forked child does not inherit it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import sys
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from ckpt_callbacks.errors import RunLockedError, StoreError
from ckpt_callbacks.messages import warn
from ckpt_callbacks.store.files import disk
from ckpt_callbacks.store.provenance import without_secrets
from ckpt_callbacks.store.remedies import remedy

try:
    import fcntl
except ImportError:  # Windows has no flock
    fcntl = None  # type: ignore[assignment]

__all__ = ["NAME", "Owner", "RunLock", "held_here", "owner_of"]

NAME = ".lock"
PATIENCE = 1.0
"""Seconds to wait for a lock: a process that was killed may take a moment to let go of its memory and its files."""

_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL}


_LIVENESS = {
    True: "alive",
    False: "gone, but a process that it started has the lock",
    None: "whether it lives can't be seen from here",
}


@dataclass(frozen=True, slots=True)
class Owner:
    """Who holds a run: the process, its machine, since when (ISO 8601, UTC) and its command line, where known."""

    pid: int | None = None
    host: str | None = None
    started: str | None = None
    command: str | None = None

    @property
    def alive(self) -> bool | None:
        """Whether that process lives; None if that can't be seen from here."""
        if self.pid is None or self.host != socket.gethostname() or os.name == "nt":
            return None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:  # somebody else's
            return True
        return True

    def __str__(self) -> str:
        """Give the words for an error message."""
        if self.pid is None:
            return "another process (it has not said which)"
        where = f"process {self.pid} on {self.host or 'an unknown host'} since {self.started or 'an unknown time'}"
        return f"{where} ({_LIVENESS[self.alive]})"


@dataclass
class _Held:
    descriptor: int
    count: int


_held: dict[str, _Held] = {}  # by the real path of the lock file
_guard = threading.RLock()
_warned: set[str] = set()


class RunLock:
    """The right to write to a run; also a context manager.

    Args:
        directory: the run's directory, which must exist.
    """

    def __init__(self, directory: str | Path) -> None:
        self.path = Path(directory) / NAME
        self._key: str | None = None

    @property
    def held(self) -> bool:
        """True while this object holds the lock."""
        return self._key is not None and self._key in _held

    def acquire(self, patience: float = PATIENCE) -> RunLock:
        """Take the lock; a lock that this object or this process holds already is counted.

        Args:
            patience: seconds to wait for another process to let go.

        Raises:
            RunLockedError: another live process holds it; the message names it.
            StoreError: the lock file can't be written.
        """
        key = os.path.realpath(self.path)
        if self.held:
            return self
        with _guard:
            if key in _held:
                _held[key].count += 1
            else:
                _held[key] = _Held(self._take(patience), 1)
            self._key = key
        return self

    def confirm(self) -> None:
        """Make sure that what is held is what others would meet: the directory may have been moved away, or its lock
        file deleted, since it was taken; then the one that lies there now is taken.

        Raises:
            RunLockedError: another process has begun there.
        """
        with _guard:
            held = _held.get(self._key) if self._key else None
            if held is None or _is_at(held.descriptor, self.path):
                return
            descriptor = self._take(patience=0)
            _unlock(held.descriptor)
            held.descriptor = descriptor

    def release(self) -> None:
        """Let go; when the last holder in this process does, other processes may take the run. Safe to repeat."""
        with _guard:
            held = _held.get(self._key) if self._key else None
            if held is not None and self._key is not None:
                held.count -= 1
                if held.count == 0:
                    del _held[self._key]
                    _unlock(held.descriptor)
            self._key = None

    def __enter__(self) -> RunLock:
        return self.acquire()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()

    def _take(self, patience: float) -> int:
        try:
            descriptor = disk.open_update(self.path)
        except OSError as error:
            raise StoreError(
                f"{self.path} can't be opened for writing ({error.strerror}), so this run can't be locked. "
                f"Check that the directory exists and may be written to. {remedy(error)}."
            ) from error
        try:
            deadline = time.monotonic() + patience
            while not _try_lock(descriptor, self.path):
                if any(_is_at(held.descriptor, self.path) for held in _held.values()):
                    raise RunLockedError(
                        f"{self.path.parent} is in use by this very process, under another name. "
                        "Use the same path in both places, or train in another directory."
                    )
                if time.monotonic() >= deadline:
                    raise RunLockedError(
                        f"{self.path.parent} is in use by {_read_owner(self.path)}. "
                        "Wait until it ends, stop it, or train in another directory."
                    )
                time.sleep(0.05)
            with contextlib.suppress(OSError):  # the disk may be full: the lock holds all the same, only nameless
                disk.truncate(descriptor)
                disk.write(descriptor, json.dumps(_myself()).encode())
        except BaseException:
            disk.close(descriptor)
            raise
        return descriptor


def held_here(directory: str | Path) -> bool:
    """Tell whether this process holds a run."""
    return os.path.realpath(Path(directory) / NAME) in _held


def owner_of(directory: str | Path) -> Owner | None:
    """The live process that holds a run, or None. Changes nothing."""
    path = Path(directory) / NAME
    with _guard:
        if held_here(directory):
            return Owner(**_myself())
        try:
            descriptor = disk.open_read(path)
        except OSError:
            return None
        try:
            free = fcntl is None or _try_lock(descriptor, path, shared=True)
        finally:
            disk.close(descriptor)
    return None if free else _read_owner(path)


def _try_lock(descriptor: int, path: Path, *, shared: bool = False) -> bool:
    """Lock an open file without waiting; False if somebody else has it. Where locks don't exist, say so and go on."""
    try:
        if fcntl is None:
            raise OSError(errno.ENOSYS, "this system has no flock")
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise StoreError(f"{path} can't be locked: {error}. {remedy(error)}.") from error
        if not shared and str(path) not in _warned:
            _warned.add(str(path))
            warn(f"{path.parent} can't be locked here ({error.strerror}): take care that one process writes to it")
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), disk.stat(path))
    except FileNotFoundError:
        return False


def _unlock(descriptor: int) -> None:
    """Let go at once, even if a child that was forked just now still has a copy of the descriptor."""
    with contextlib.suppress(OSError):
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    disk.close(descriptor)


def _myself() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "started": _STARTED,
        "command": " ".join(without_secrets(sys.orig_argv))[:1000],
    }


def _read_owner(path: Path) -> Owner:
    try:
        found = json.loads(disk.read(path, 64 << 10))
        return Owner(int(found["pid"]), str(found["host"]), str(found["started"]), str(found["command"]))
    except (OSError, ValueError, TypeError, KeyError):
        return Owner()  # it may be writing its name at this moment


def _let_go_in_child() -> None:
    """Close the child's copies after a fork: a data loader's worker must not hold the run when its parent is killed."""
    global _guard
    _guard = threading.RLock()  # the parent's may have been held by a thread that isn't here
    for held in _held.values():
        os.close(held.descriptor)
    _held.clear()


_STARTED = datetime.now(UTC).isoformat(timespec="seconds")
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_in_child)
