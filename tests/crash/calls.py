"""Calls: every call of this process that changes something beneath a directory - numbered, recorded, a place to die at.

The functions of `os` and `fcntl` are replaced for the rest of the process, so whoever calls them is seen: the store,
the trace, the lock, the standard library, on any thread. What goes by another door (`open` and other functions written
in C) is told by Python's audit events; it ends up in `Calls.unseen`, which must stay empty.
"""

from __future__ import annotations

import fcntl
import functools
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

__all__ = ["EXIT", "Call", "Calls", "Death", "Moment"]

_BY_PATH = ("mkdir", "rmdir", "unlink", "remove", "truncate", "utime", "chmod", "chown", "mkfifo", "mknod", "setxattr")
_BY_TWO_PATHS = ("rename", "replace", "link", "symlink")
_BY_DESCRIPTOR = (
    *("write", "pwrite", "writev", "pwritev", "ftruncate", "fsync", "fdatasync", "posix_fallocate"),
    *("sendfile", "copy_file_range", "splice", "fchmod", "fchown"),
)
_WRITES = ("write", "pwrite")
_CHANGING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_EVENTS = {f"os.{name}" for name in (*_BY_PATH, *_BY_TWO_PATHS)} | {"open", "shutil.rmtree"}

EXIT = 137
"""The exit code of a death that comes by ``os._exit``; the others come by SIGKILL."""

Moment = Literal["before", "amid", "after"]


class Death(NamedTuple):
    """Where a process dies: before, amid (half a write is done) or after one of its calls.

    Each thread's calls are counted from 1: how threads take turns is another matter each time.
    """

    thread: str
    number: int
    moment: Moment


@dataclass(frozen=True)
class Call:
    """One call. Paths are relative to the directory; ``data`` and ``offset`` are those of a write."""

    name: str
    path: str
    thread: str
    target: str = ""
    descriptor: int = -1
    flags: int = 0
    offset: int = 0
    data: bytes = b""

    def __str__(self) -> str:
        return f"{self.name}({self.path}{' -> ' + self.target if self.target else ''})"


class Calls:
    """What this process changes beneath a directory, from now until it ends.

    Args:
        root: the directory; it need not exist.
        tell: is told of each call, in their order, once it is made.
        death: where to die, or None.

    Attributes:
        unseen: changes that went by no door that is watched.
    """

    def __init__(self, root: Path, tell: Callable[[Any], None], death: Death | None = None) -> None:
        self._root, self._tell, self._death = os.path.abspath(root), tell, death
        self.unseen: list[str] = []
        self._counts: Counter[str] = Counter()
        self._open: dict[int, str] = {}
        self._one_at_a_time = threading.RLock()
        self._inside = threading.local()
        self._install()

    def mark(self, what: Any) -> None:
        """Tell between two calls that something has happened."""
        with self._one_at_a_time:
            self._tell(what)

    def _install(self) -> None:
        doors = dict.fromkeys(_BY_PATH, self._path) | dict.fromkeys(_BY_TWO_PATHS, self._two_paths)
        doors |= dict.fromkeys(_BY_DESCRIPTOR, self._descriptor) | {"open": self._opened, "close": self._closed}
        for module, name, door in (*((os, *item) for item in doors.items()), (fcntl, "flock", self._descriptor)):
            if (real := getattr(module, name, None)) is not None:  # this system may not have it
                setattr(module, name, self._watched(name, door, real))
        sys.addaudithook(self._audit)

    def _watched(self, name: str, door: Callable[..., Any], real: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(real)
        def call(*arguments: Any, **options: Any) -> Any:
            with self._one_at_a_time:
                self._inside.it = True
                try:
                    return door(name, real, *arguments, **options)
                finally:
                    self._inside.it = False

        return call

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in _EVENTS or getattr(self._inside, "it", False):
            return
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & _CHANGING):
            return
        if any(isinstance(one, (str, bytes, os.PathLike)) and self._within(one) is not None for one in arguments):
            self.unseen.append(f"{event}{arguments}")

    # Doors: each knows what its call is about, makes it, and dies where it must -------------------------------------

    def _path(self, name: str, real: Callable[..., Any], path: Any, *rest: Any, **options: Any) -> Any:
        return self._made(Call(name, self._name(path), _thread()), lambda: real(path, *rest, **options))

    def _two_paths(self, name: str, real: Callable[..., Any], one: Any, other: Any, **options: Any) -> Any:
        first = os.fspath(one) if name == "symlink" else self._name(one)
        return self._made(Call(name, first, _thread(), self._name(other)), lambda: real(one, other, **options))

    def _descriptor(self, name: str, real: Callable[..., Any], descriptor: int, *rest: Any) -> Any:
        path = self._open.get(descriptor, "")
        if name in _WRITES and path:
            return self._written(Call(name, path, _thread(), descriptor=descriptor), real, *rest)
        flags = rest[0] if name == "flock" else 0
        return self._made(
            Call(name, path, _thread(), descriptor=descriptor, flags=flags), lambda: real(descriptor, *rest)
        )

    def _opened(self, name: str, real: Callable[..., Any], path: Any, flags: int, *rest: Any, **options: Any) -> Any:
        within = self._name(path)
        if not within:
            return real(path, flags, *rest, **options)
        if not flags & _CHANGING:
            descriptor = real(path, flags, *rest, **options)
        else:
            self._die("before")
            descriptor = real(path, flags, *rest, **options)
        self._open[descriptor] = within
        if flags & _CHANGING:
            self._done(Call(name, within, _thread(), descriptor=descriptor, flags=flags))
        else:
            self._tell(Call("look", within, _thread(), descriptor=descriptor))  # a directory may be fsynced by it
        return descriptor

    def _closed(self, name: str, real: Callable[..., Any], descriptor: int) -> Any:
        self._open.pop(descriptor, None)
        return real(descriptor)

    def _written(self, call: Call, real: Callable[..., Any], data: Any, *where: int) -> Any:
        self._die("before")
        view = memoryview(data).cast("B")
        if self._dies("amid"):
            view = view[: len(view) // 2]
        count = real(call.descriptor, view, *where)
        offset = where[0] if where else os.lseek(call.descriptor, 0, os.SEEK_CUR) - count
        done = replace(call, offset=offset, data=bytes(view[:count]))
        self._done(done)
        return count

    def _made(self, call: Call, work: Callable[[], Any]) -> Any:
        if not (call.target or call.path):
            return work()
        self._die("before")
        try:
            result = work()
        except OSError:  # it changed nothing
            self._done(Call("failed", call.path, call.thread))
            raise
        self._done(call)
        return result

    def _done(self, call: Call) -> None:
        self._tell(call)
        self._die("amid")
        self._die("after")
        self._counts[call.thread] += 1

    def _dies(self, moment: Moment) -> bool:
        return self._death == (_thread(), self._counts[_thread()] + 1, moment)

    def _die(self, moment: Moment) -> None:
        """End this very process: no handler, no finally, no flush."""
        if not self._dies(moment):
            return
        if moment == "after":
            os._exit(EXIT)
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)

    # Names -----------------------------------------------------------------------------------------------------------

    def _within(self, path: Any) -> str | None:
        if isinstance(path, int):
            return None
        whole = os.path.abspath(os.fsdecode(path))
        if whole == self._root:
            return "."
        return whole.removeprefix(self._root + os.sep) if whole.startswith(self._root + os.sep) else None

    def _name(self, path: Any) -> str:
        return self._within(path) or ""


def _thread() -> str:
    return threading.current_thread().name
