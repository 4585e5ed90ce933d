"""The door: how every file of a run is opened, and nothing that only looks like one.

Whoever can write to a run's directory can put a link, a named pipe or a device in the place of a file. A link would
let training write to, or read, what is not the run's; a pipe would let it wait for ever. So the last part of a path is
never followed, nothing is waited for, and what is no regular file is refused. The parts above may be links: they are
the user's, and so is the way to a run; its own directories may not.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

__all__ = ["IrregularError", "is_directory", "kind_of", "open_regular", "reading"]

_BINARY = getattr(os, "O_BINARY", 0)  # Windows translates line ends without it
_CLOEXEC = getattr(os, "O_CLOEXEC", 0)
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_NO_WAIT = getattr(os, "O_NONBLOCK", 0)

_TELLING = {errno.ELOOP, errno.EMLINK, errno.ENXIO, errno.EISDIR}
"""What systems say of a link that they don't follow, and of what can't be opened as a file."""

_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFREG: "a file",
}


class IrregularError(OSError):
    """In the place of a file, or directory, of the run lies something else; ``strerror`` says what."""


def open_regular(path: str | Path, flags: int) -> int:
    """Open a file of a run, and nothing else.

    Args:
        path: where it is.
        flags: as `os.open` has them; with ``O_CREAT`` its modes are those that the umask gives. Not ``O_TRUNC``, for
            that would come before the look at what was opened.

    Raises:
        IrregularError: something else lies there.
    """
    try:
        descriptor = _open(path, flags | _CLOEXEC | _BINARY | _NO_LINK)
    except OSError as error:
        if error.errno in _TELLING and (kind := kind_of(os.lstat(path).st_mode)) is not None:
            raise _irregular(kind, path) from error
        raise
    try:
        # Windows can't be told not to follow a link.
        status = os.fstat(descriptor) if _NO_LINK else os.lstat(path)
        if (kind := kind_of(status.st_mode)) is not None:
            raise _irregular(kind, path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextlib.contextmanager
def reading(path: str | Path) -> Iterator[FileIO]:
    """The same for reading, as a file object without a buffer."""
    descriptor = open_regular(path, os.O_RDONLY)
    try:
        with FileIO(descriptor, closefd=False) as file:
            yield file
    finally:
        os.close(descriptor)


def kind_of(mode: int) -> str | None:
    """What lies there, for people, by the mode that `os.lstat` gives; None if it is a regular file."""
    return None if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "a device")


def is_directory(path: str | Path) -> bool:
    """Tell whether a directory of the run's own is there.

    Raises:
        IrregularError: a link lies there, or whatever else.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return False
    if not stat.S_ISDIR(mode):
        raise _irregular(kind_of(mode) or "a file", path)
    return True


def _open(path: str | Path, flags: int) -> int:
    try:
        return os.open(path, flags | _NO_WAIT, 0o666)
    except BlockingIOError:
        # A file server lends files to its clients, and calls this one back: that is worth waiting for.
        if kind_of(os.lstat(path).st_mode) is not None:
            raise
        return os.open(path, flags, 0o666)


def _irregular(kind: str, path: str | Path) -> IrregularError:
    number = {"a symbolic link": errno.ELOOP, "a directory": errno.EISDIR, "a file": errno.ENOTDIR}.get(kind)
    return IrregularError(number or errno.ENXIO, f"{kind} lies in its place", os.fspath(path))
