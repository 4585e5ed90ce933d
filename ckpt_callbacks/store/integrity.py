"""Whether a snapshot's files are what its manifest promises, byte for byte."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import xxhash

from ckpt_callbacks.errors import CorruptSnapshotError, StoreError
from ckpt_callbacks.store import manifest as manifests
from ckpt_callbacks.store.files import disk
from ckpt_callbacks.store.manifest import FileInfo, Manifest

__all__ = ["read_manifest", "verify_directory"]

THREADS = 4
"""How many files are read at a time."""


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
    try:
        manifest = read_manifest(directory)
    except FileNotFoundError:
        return [f"{manifests.NAME} is missing: without it nothing says what the other files must be."]
    except StoreError as error:
        return [str(error)]
    with ThreadPoolExecutor(THREADS) as threads:  # hashing and reading leave the interpreter to others
        found = threads.map(lambda file: _verify_file(directory / file[0], file[1], full), manifest.files.items())
        return [problem for problem in found if problem]


def _verify_file(path: Path, info: FileInfo, full: bool) -> str | None:
    try:
        status = disk.stat(path)
        if not stat.S_ISREG(status.st_mode):
            return f"{path.name} is not a file."
        if status.st_size != info.size:
            return f"{path.name} has another size: expected {info.size} bytes, found {status.st_size}."
        if not full:
            return None
        found = _digest_of_file(path)
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


def _unreadable_tensors(path: Path) -> str | None:
    """Ask the official reader whether it understands the file's header."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np"):
            return None
    except (SafetensorError, OSError) as error:
        return f"{path.name} can't be opened as safetensors: {error}."
