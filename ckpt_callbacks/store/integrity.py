"""Whether a snapshot's files are what its manifest promises, byte for byte.

Three things look alike and are not: bytes that differ (damage), bytes that can't be read now (they may be good), and a
snapshot that was deleted or reduced by the run that owns it while somebody looked at it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import xxhash

from ckpt_callbacks.door import kind_of
from ckpt_callbacks.errors import CorruptSnapshotError, SnapshotNotFoundError, StoreError, UnreachableError
from ckpt_callbacks.limits import too_large
from ckpt_callbacks.store import manifest as manifests
from ckpt_callbacks.store.files import PAGE, disk
from ckpt_callbacks.store.manifest import FileInfo, Manifest, unless_newer
from ckpt_callbacks.store.remedies import is_damage, remedy, told

__all__ = [
    *("Read", "listed", "load_directory", "read_manifest", "senseless", "twice", "unless_deleted", "unreadable"),
    "verify_directory",
]

THREADS = 4
"""How many files, or pieces of one, are read at a time."""

_MAX_HEADER = 100_000_000  # the format's own limit

PIECE = 8 << 20
"""How many bytes of a file are read at a time, when it is read into memory: whole pages."""

SAMPLES = 16
"""At how many places a file is asked whether it can be had without the disk."""

Allocate = Callable[[int], Any]
"""Gives a writable buffer of at least so many bytes, from the beginning of a page, and no less than a whole one."""

Read = Callable[[Path, Manifest], None]
"""Tries whether a snapshot whose bytes are right makes sense; raises CorruptSnapshotError if it doesn't."""

_Answer = TypeVar("_Answer")


def read_manifest(directory: str | Path) -> Manifest:
    """Read the manifest of a snapshot's directory.

    Raises:
        FileNotFoundError: there is none, so this is not a snapshot.
        CorruptSnapshotError: it can't be parsed, or its place on the disk is damaged.
        UnreachableError: it can't be read now.
        StoreError: it is of a newer format.
    """
    path = os.path.join(directory, manifests.NAME)
    try:
        raw = twice(lambda: disk.read(path, manifests.MAX_BYTES + 1))
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(path) from None
    except OSError as error:
        raise unreadable(path, error) from error
    try:
        return Manifest.from_bytes(raw)
    except MemoryError as error:
        raise _no_memory(path, len(raw)) from error


def twice(ask: Callable[[], _Answer]) -> _Answer:
    """What a disk or a network refuses once, it may give the second time: a handle was stale, a server busy."""
    try:
        return ask()
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError:
        return ask()


def listed(path: str | Path) -> list[os.DirEntry[str]]:
    """What a directory holds, sorted by name; an absent one holds nothing. StoreError: that can't be known now."""
    with told(f"{path} can't be listed"):
        return twice(lambda: disk.list(path))


def unreadable(path: str | Path, error: OSError) -> StoreError:
    """What it means that a file can't be read: that it is damaged, or nothing of its bytes."""
    if is_damage(error):
        return CorruptSnapshotError(f"{os.path.basename(path)} can't be read: {error.strerror}.")
    return UnreachableError(
        f"{path} can't be read now: {error.strerror}. It may be good, so nothing was changed. {remedy(error)}."
    )


@contextlib.contextmanager
def unless_deleted(directory: Path) -> Iterator[None]:
    """Read a snapshot's files: an error of a snapshot that was deleted meanwhile says so, and every one is ours.

    Raises:
        SnapshotNotFoundError: it was deleted.
        CorruptSnapshotError, UnreachableError: what the disk's refusal means.
    """
    try:
        yield
    except (CorruptSnapshotError, OSError) as error:
        if _is_deleted(directory):
            raise _deleted(directory) from error
        if isinstance(error, OSError):
            raise unreadable(error.filename or directory, error) from error
        raise


def verify_directory(directory: Path, *, full: bool = True, read: Read | None = None) -> list[str]:
    """Compare a snapshot's directory with its manifest; return what is wrong, as sentences that name the file.

    Args:
        directory: where the snapshot's files are, whatever its name.
        full: read every byte and compare digests; False compares names and sizes only.
        read: tries, if all bytes were read and are right, whether they make sense.

    Raises:
        UnreachableError: a file can't be read now, or a later version of this package can.
        SnapshotNotFoundError: it was deleted meanwhile.
    """

    def verify(item: tuple[str, FileInfo]) -> str | None:
        name, info = item
        return _compare(directory / name, info, _digest_of_file if full else None)

    def look(manifest: Manifest) -> list[str]:
        with ThreadPoolExecutor(THREADS) as threads:  # hashing and reading leave the interpreter to others
            problems = [problem for problem in threads.map(verify, manifest.files.items()) if problem]
        return problems or (senseless(directory, manifest, read) if full and read is not None else [])

    return _steadily(directory, look)


def senseless(directory: Path, manifest: Manifest, read: Read) -> list[str]:
    """What is wrong with a snapshot whose bytes are right: that they can't be read.

    Raises:
        UnreachableError: a later version of this package wrote it, and can.
    """
    try:
        with unless_newer(manifest.versions):
            read(directory, manifest)
    except CorruptSnapshotError as error:
        return [f"its digests are right, but {error}"]
    except FileNotFoundError as error:  # it was there: whoever looks twice sees why it went
        return [f"{error.filename} is missing."]
    except OSError as error:
        raise unreadable(error.filename or directory, error) from error
    return []


def load_directory(directory: Path, allocate: Allocate) -> tuple[dict[str, memoryview], list[str]]:
    """Read a snapshot's files into memory, and compare the very bytes that were read with its manifest.

    Args:
        directory: where the snapshot's files are, whatever its name.
        allocate: gives the memory for each.

    Returns:
        Each file's bytes; and what is wrong.

    Raises:
        UnreachableError, SnapshotNotFoundError: as `verify_directory` does.
    """
    files: dict[str, memoryview] = {}

    def look(manifest: Manifest) -> list[str]:
        files.clear()
        with ThreadPoolExecutor(THREADS) as threads:
            found = [compare(name, info, threads) for name, info in manifest.files.items()]
        return [problem for problem in found if problem]

    def compare(name: str, info: FileInfo, threads: ThreadPoolExecutor) -> str | None:
        def load(path: Path) -> str:
            try:
                out = memoryview(allocate(-(-info.size // PAGE) * PAGE)).cast("B")
            except MemoryError as error:
                raise _too_large(path, info.size) from error
            files[path.name] = out[: info.size]
            return _load(path, out, info.size, threads)

        return _compare(directory / name, info, load)

    return files, _steadily(directory, look)


def _steadily(directory: Path, look: Callable[[Manifest], list[str]]) -> list[str]:
    """What is wrong with a snapshot - looked at again if the run that owns it has reduced it meanwhile."""
    manifest = _manifest_or_problem(directory)
    while isinstance(manifest, Manifest):
        problems = look(manifest)
        now = _manifest_or_problem(directory) if problems else manifest
        if now == manifest:
            return problems
        if _is_deleted(directory):
            raise _deleted(directory)
        manifest = now
    return [manifest]


def _manifest_or_problem(directory: Path) -> Manifest | str:
    try:
        return read_manifest(directory)
    except FileNotFoundError:
        if _is_deleted(directory):
            raise _deleted(directory) from None
        return f"{manifests.NAME} is missing: without it nothing says what the other files must be."
    except UnreachableError:
        raise
    except StoreError as error:
        return str(error)


def _is_deleted(directory: Path) -> bool:
    """Whether a snapshot is gone or going; one that has lost its manifest otherwise is damaged."""
    try:
        names = {entry.name for entry in twice(lambda: disk.list(directory))}
    except OSError as error:
        raise unreadable(directory, error) from error
    return manifests.NAME not in names and (not names or manifests.DROPPED in names)


def _deleted(directory: Path) -> SnapshotNotFoundError:
    return SnapshotNotFoundError(f"{directory} was deleted. Look again what there is (ckpt ls).")


def _compare(path: Path, info: FileInfo, digest_of: Callable[[Path], str] | None) -> str | None:
    """What is wrong with a file; without ``digest_of`` only its size is looked at."""
    if (excess := too_large(path.name, info.size)) is not None:
        return f"{excess}, so it is not read."
    try:
        status = twice(lambda: disk.stat(path))
        if (kind := kind_of(status.st_mode)) is not None:
            return f"{path.name} is not a file: {kind} lies in its place."
        if status.st_size != info.size:
            return f"{path.name} has another size: expected {info.size} bytes, found {status.st_size}."
        if digest_of is None:
            return None
        found = twice(lambda: digest_of(path))
    except CorruptSnapshotError as error:
        return str(error)
    except FileNotFoundError:
        return f"{path.name} is missing."
    except OSError as error:
        if not is_damage(error):
            raise unreadable(path, error) from error
        return f"{path.name} can't be read: {error.strerror}."
    if found != info.digest:
        return f"{path.name} has other bytes than were written: expected {info.digest}, found {found}."
    return _unreadable_tensors(path) if path.suffix == ".safetensors" else None


def _digest_of_file(path: Path) -> str:
    hashed = xxhash.xxh3_128()
    for chunk in disk.read_chunks(path):
        hashed.update(chunk)
    return f"xxh3-128:{hashed.hexdigest()}"


def _load(path: Path, out: memoryview, size: int, threads: ThreadPoolExecutor) -> str:
    """Read a file into whole pages of memory, and hash each piece once it is there, while others are read."""
    hashed = xxhash.xxh3_128()
    descriptor = disk.open_read(path)

    def piece(start: int) -> memoryview:
        stop = min(start + PIECE, len(out))
        done = start
        while done < min(stop, size) and (count := _read_at(descriptor, out[done:stop], done)):
            done += count
        return out[start : min(done, size)]

    try:
        # Past the page cache: what was just written is seldom there, and a copy through it costs training its memory.
        if size > PIECE and not _is_cached(descriptor, size):
            disk.bypass_cache(descriptor, True)
        for read in threads.map(piece, range(0, size, PIECE)):
            hashed.update(read)
    finally:
        disk.close(descriptor)
    return f"xxh3-128:{hashed.hexdigest()}"


def _is_cached(descriptor: int, size: int) -> bool:
    """Whether a file is in the page cache, as all samples but one tell. A single one would not do: to ask for a page
    brings it there, and so do those who look at a header. So no more are asked for than it takes."""
    places = range(size // SAMPLES // 2, size, -(-size // SAMPLES))
    misses = (place for place in places if not disk.is_cached(descriptor, place))
    return len(list(islice(misses, 2))) < 2


def _read_at(descriptor: int, out: memoryview, offset: int) -> int:
    try:
        return disk.read_at(descriptor, out, offset)
    except OSError as error:
        if error.errno != errno.EINVAL:  # this disk wants larger pages, or was interrupted within one
            raise
    disk.bypass_cache(descriptor, False)
    return disk.read_at(descriptor, out, offset)


def _too_large(path: Path, size: int) -> StoreError:
    """What it means that memory can't hold a file: that it is damaged, if it is larger than its own header says."""
    told = _told_size(path) if path.suffix == ".safetensors" else size
    if told != size:
        return CorruptSnapshotError(f"{path.name} has {size:,} bytes, and {told:,} by its own header.")
    return _no_memory(path, size)


def _no_memory(path: str | Path, size: int) -> UnreachableError:
    return UnreachableError(
        f"{path} can't be read now: memory for its {size:,} bytes can't be had. It may be good, so nothing was "
        "changed. Give the job more memory."
    )


def _told_size(path: Path) -> int:
    """How many bytes a safetensors file has by its own header; 0 if that makes no sense."""
    length = min(int.from_bytes(disk.read(path, 8), "little"), _MAX_HEADER)
    try:
        header = json.loads(disk.read(path, 8 + length)[8:])
        ends = (int(entry["data_offsets"][1]) for name, entry in header.items() if name != "__metadata__")
        return 8 + length + max(ends, default=0)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, OverflowError):
        return 0


def _unreadable_tensors(path: Path) -> str | None:
    """Ask the official reader whether it understands the file's header."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np"):
            return None
    except (SafetensorError, OSError) as error:
        return f"{path.name} can't be opened as safetensors: {error}."
