"""Every system call that the store makes, in one place.

The store calls `disk` and nothing else, so one object can be replaced to count each call, interrupt it, shorten a write
or pretend that the disk is full (see the crash tests). No method here decides anything; files are opened by the `door`.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from ckpt_callbacks import door

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["PAGE", "Disk", "disk"]

PAGE = 4096
"""What reads and writes past the page cache begin at, in a file and in memory, and are a multiple of, in bytes."""

_BINARY = getattr(os, "O_BINARY", 0)  # Windows translates line ends without it
_CLOEXEC = getattr(os, "O_CLOEXEC", 0)
_DIRECTORY = getattr(os, "O_DIRECTORY", 0)  # else a pipe of that name would be waited for
_DIRECT = getattr(os, "O_DIRECT", 0) if fcntl is not None else 0
_NOT_CACHED = getattr(os, "RWF_NOWAIT", 0)
_NO_DIRECTORY_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES, errno.EPERM}
_TURN = threading.Lock()
READ_SIZE = 4 << 20


class Disk:
    """The file system, one small method per call. Paths are strings or `Path`; descriptors are ints."""

    # Changes: the calls that a crash can fall between.

    def mkdir(self, path: str | Path) -> None:
        """Create one directory; it must not exist."""
        os.mkdir(path)

    def create(self, path: str | Path) -> int:
        """Create a file that must not exist, for writing."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _CLOEXEC | _BINARY, 0o666)

    def open_append(self, path: str | Path) -> int:
        """Open a file for reading and appending, creating it if needed."""
        return door.open_regular(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)

    def open_update(self, path: str | Path) -> int:
        """Open a file for reading and writing in place, creating it if needed."""
        return door.open_regular(path, os.O_RDWR | os.O_CREAT)

    def write(self, descriptor: int, data: bytes | bytearray | memoryview) -> int:
        """Write at most all of ``data``; return how many bytes were taken."""
        return os.write(descriptor, data)

    def bypass_cache(self, descriptor: int, on: bool) -> bool:
        """Let writes to an open file go straight to the disk, or no more; tell whether that can be had here."""
        if not _DIRECT:
            return False
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
        try:
            fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | _DIRECT if on else flags & ~_DIRECT)
        except OSError:  # this file system has no such thing
            return False
        return True

    def truncate(self, descriptor: int) -> None:
        """Make an open file empty."""
        os.ftruncate(descriptor, 0)

    def fsync(self, descriptor: int) -> None:
        """Return when what was written to an open file would survive a power cut."""
        os.fsync(descriptor)

    def close(self, descriptor: int) -> None:
        """Close a descriptor."""
        os.close(descriptor)

    def rename(self, source: str | Path, target: str | Path) -> None:
        """Give a file or directory another name at once, replacing a file (or link) of that name."""
        os.replace(source, target)

    def link(self, source: str | Path, target: str | Path) -> None:
        """Give a file a further name."""
        os.link(source, target)

    def symlink(self, target: str | Path, link: str | Path) -> None:
        """Create a symbolic link."""
        os.symlink(target, link, target_is_directory=True)

    def unlink(self, path: str | Path) -> None:
        """Remove a file or link."""
        os.unlink(path)

    def rmdir(self, path: str | Path) -> None:
        """Remove an empty directory."""
        os.rmdir(path)

    def fsync_directory(self, path: str | Path) -> None:
        """Make names inside a directory durable, where the file system has such a call."""
        if os.name == "nt":
            return
        try:
            descriptor = os.open(path, os.O_RDONLY | _CLOEXEC | _DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            # Some network file systems have no such call and need none: names are durable when the server answers.
            # Nor can a directory be opened that this user may only pass through.
            if error.errno not in _NO_DIRECTORY_SYNC:
                raise

    # Questions: nothing changes.

    def read(self, path: str | Path, limit: int = sys.maxsize) -> bytes:
        """Give a file's bytes, at most ``limit`` of them: the first ones."""
        descriptor = self.open_read(path)
        try:
            return _read(descriptor, min(os.fstat(descriptor).st_size, limit))
        finally:
            os.close(descriptor)

    def read_end(self, path: str | Path, limit: int) -> bytes:
        """Give a file's bytes, at most ``limit`` of them: the last ones."""
        descriptor = self.open_read(path)
        try:
            size = os.fstat(descriptor).st_size
            os.lseek(descriptor, max(size - limit, 0), os.SEEK_SET)
            return _read(descriptor, min(size, limit))
        finally:
            os.close(descriptor)

    def read_chunks(self, path: str | Path) -> Iterator[memoryview]:
        """Give a file's bytes piece by piece; each piece is valid until the next one is asked for."""
        buffer = bytearray(READ_SIZE)
        view = memoryview(buffer)
        with door.reading(path) as file:
            while count := file.readinto(buffer):
                yield view[:count]

    def open_read(self, path: str | Path) -> int:
        """Open a file for reading."""
        return door.open_regular(path, os.O_RDONLY)

    def read_at(self, descriptor: int, out: memoryview, offset: int) -> int:
        """Read at most all of ``out`` from ``offset`` on; return how many bytes came. From any thread."""
        if hasattr(os, "preadv"):
            return os.preadv(descriptor, [out], offset)
        with _TURN:  # Windows has one place per open file
            os.lseek(descriptor, offset, os.SEEK_SET)
            data = os.read(descriptor, len(out))
        out[: len(data)] = data
        return len(data)

    def read_samples(self, path: str | Path, starts: Iterable[int], length: int) -> Iterator[bytes]:
        """Give some bytes of a file from each of these places; fewer where it ends."""
        with door.reading(path) as file:
            for start in starts:
                file.seek(start)
                yield file.read(length)

    def is_cached(self, descriptor: int, offset: int) -> bool:
        """Tell whether the byte at ``offset`` can be had without the disk; False if the system doesn't tell."""
        if not _NOT_CACHED:
            return False
        try:
            return bool(os.preadv(descriptor, [bytearray(1)], offset, _NOT_CACHED))
        except OSError:
            return False

    def read_last_byte(self, descriptor: int) -> bytes:
        """Give the last byte of an open file, or nothing if it is empty."""
        size = os.fstat(descriptor).st_size
        if not size:
            return b""
        os.lseek(descriptor, size - 1, os.SEEK_SET)
        return os.read(descriptor, 1)

    def stat(self, path: str | Path) -> os.stat_result:
        """Size, times and kind of what a path names; a link is told of as one."""
        return os.lstat(path)

    def is_directory(self, path: str | Path) -> bool:
        """Tell whether a directory of the run's own is there; a link in its place is an error."""
        return door.is_directory(path)

    def free(self, path: str | Path) -> int:
        """How many bytes the disk below ``path`` has left for this user."""
        return shutil.disk_usage(path).free

    def lexists(self, path: str | Path) -> bool:
        """Tell whether a name is taken, be it by a dangling link. A disk that doesn't answer is an error, not a no."""
        try:
            os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def readlink(self, path: str | Path) -> str | None:
        """Where a symbolic link points, or None if it isn't one."""
        try:
            return os.readlink(path)
        except OSError:
            return None

    def names(self, path: str | Path) -> tuple[str, ...]:
        """The names in a directory, in any order; an absent directory holds nothing."""
        try:
            return tuple(os.listdir(path))
        except FileNotFoundError:
            return ()

    def list(self, path: str | Path) -> list[os.DirEntry[str]]:
        """What a directory holds, sorted by name; an absent directory holds nothing."""
        try:
            with os.scandir(path) as entries:
                return sorted(entries, key=lambda entry: entry.name)
        except FileNotFoundError:
            return []


def _read(descriptor: int, wanted: int) -> bytes:
    parts = []
    while wanted > 0 and (part := os.read(descriptor, wanted)):
        parts.append(part)
        wanted -= len(part)
    return b"".join(parts)


disk = Disk()
"""The one that the store uses; a test may replace its methods."""
