"""Whether a snapshot's files are what its manifest promises, byte for byte."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import xxhash

from ckpt_callbacks.errors import CorruptSnapshotError, StoreError
from ckpt_callbacks.store import manifest as manifests
from ckpt_callbacks.store.files import PAGE, disk
from ckpt_callbacks.store.manifest import FileInfo, Manifest

__all__ = ["load_directory", "read_manifest", "verify_directory"]

THREADS = 4
"""How many files, or pieces of one, are read at a time."""

PIECE = 8 << 20
"""How many bytes of a file are read at a time, when it is read into memory: whole pages."""

Allocate = Callable[[int], Any]
"""Gives a writable buffer of at least so many bytes, from the beginning of a page, and no less than a whole one."""


def read_manifest(directory: str | Path) -> Manifest:
    """Read the manifest of a snapshot's directory.

    Raises:
        FileNotFoundError: there is none, so this is not a snapshot.
        CorruptSnapshotError: it can't be read.
        StoreError: it is of a newer format.
    """
    path = os.path.join(directory, manifests.NAME)
    try:
        raw = disk.read(path, manifests.MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(path) from None
    except OSError as error:
        raise CorruptSnapshotError(f"{manifests.NAME} can't be read: {error.strerror}.") from error
    return Manifest.from_bytes(raw)


def verify_directory(directory: Path, *, full: bool = True) -> list[str]:
    """Compare a snapshot's directory with its manifest; return what is wrong, as sentences that name the file.

    Args:
        directory: where the snapshot's files are, whatever its name.
        full: read every byte and compare digests; False compares names and sizes only.
    """
    manifest = _manifest_or_problem(directory)
    if isinstance(manifest, str):
        return [manifest]

    def verify(item: tuple[str, FileInfo]) -> str | None:
        name, info = item
        return _compare(directory / name, info, _digest_of_file if full else None)

    with ThreadPoolExecutor(THREADS) as threads:  # hashing and reading leave the interpreter to others
        problems = [problem for problem in threads.map(verify, manifest.files.items()) if problem]
    changed = problems and _manifest_or_problem(directory) != manifest  # the run that owns it reduced it meanwhile
    return verify_directory(directory, full=full) if changed else problems


def load_directory(directory: Path, allocate: Allocate) -> tuple[dict[str, memoryview], list[str]]:
    """Read a snapshot's files into memory, and compare the very bytes that were read with its manifest.

    Args:
        directory: where the snapshot's files are, whatever its name.
        allocate: gives the memory for each.

    Returns:
        Each file's bytes; and what is wrong, as `verify_directory` has it.
    """
    manifest = _manifest_or_problem(directory)
    if isinstance(manifest, str):
        return {}, [manifest]
    files: dict[str, memoryview] = {}
    problems = []
    with ThreadPoolExecutor(THREADS) as threads:
        for name, info in manifest.files.items():

            def load(path: Path, info: FileInfo = info) -> str:
                out = memoryview(allocate(-(-info.size // PAGE) * PAGE)).cast("B")
                files[path.name] = out[: info.size]
                return _load(path, out, info.size, threads)

            problem = _compare(directory / name, info, load)
            problems += [problem] if problem else []
    return files, problems


def _manifest_or_problem(directory: Path) -> Manifest | str:
    try:
        return read_manifest(directory)
    except FileNotFoundError:
        return f"{manifests.NAME} is missing: without it nothing says what the other files must be."
    except StoreError as error:
        return str(error)


def _compare(path: Path, info: FileInfo, digest_of: Callable[[Path], str] | None) -> str | None:
    """What is wrong with a file; without ``digest_of`` only its size is looked at."""
    try:
        status = disk.stat(path)
        if not stat.S_ISREG(status.st_mode):
            return f"{path.name} is not a file."
        if status.st_size != info.size:
            return f"{path.name} has another size: expected {info.size} bytes, found {status.st_size}."
        if digest_of is None:
            return None
        found = digest_of(path)
    except FileNotFoundError:
        return f"{path.name} is missing."
    except OSError as error:
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
        if size > PIECE and not disk.is_cached(descriptor, size // 2):
            disk.bypass_cache(descriptor, True)
        for read in threads.map(piece, range(0, size, PIECE)):
            hashed.update(read)
    finally:
        disk.close(descriptor)
    return f"xxh3-128:{hashed.hexdigest()}"


def _read_at(descriptor: int, out: memoryview, offset: int) -> int:
    try:
        return disk.read_at(descriptor, out, offset)
    except OSError as error:
        if error.errno != errno.EINVAL:  # this disk wants larger pages, or was interrupted within one
            raise
    disk.bypass_cache(descriptor, False)
    return disk.read_at(descriptor, out, offset)


def _unreadable_tensors(path: Path) -> str | None:
    """Ask the official reader whether it understands the file's header."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np"):
            return None
    except (SafetensorError, OSError) as error:
        return f"{path.name} can't be opened as safetensors: {error}."
