"""How a file's bytes reach the disk: hashed on the way, past the page cache, durable - or linked, if they are there.

Nothing here knows what a snapshot is.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import xxhash

from ckpt_callbacks.door import kind_of
from ckpt_callbacks.store.files import PAGE, disk
from ckpt_callbacks.store.manifest import FileInfo

__all__ = ["SMALL", "TEMPORARY", "Chunks", "Durability", "DurableFiles"]

Durability = Literal["full", "none"]
Chunks = Sequence[bytes | bytearray | memoryview]

TEMPORARY = ".partial"
"""How the name of what isn't finished ends."""

WRITE_SIZE = 32 << 20
SMALL = 1 << 20
SAMPLES, SAMPLE = 16, 64


class DurableFiles:
    """Writes files so that they survive what ``durability`` says.

    Args:
        durability: ``"full"`` survives a power cut, ``"none"`` (no fsync) survives a killed process.
    """

    def __init__(self, durability: Durability) -> None:
        self.durability = durability

    def place(self, path: Path, chunks: Chunks, earlier: Mapping[FileInfo, Path]) -> FileInfo:
        """Give an earlier file of the same bytes a further name, or write this one."""
        size = sum(memoryview(chunk).nbytes for chunk in chunks)
        if not any(info.size == size and _alike(known, chunks) for info, known in earlier.items()):
            return self.write(path, chunks)
        info = FileInfo(size, _digest(chunks))
        if info not in earlier or not self._link(earlier[info], path, size):
            self.write(path, chunks, hashed=False)
        return info

    def _link(self, source: Path, path: Path, size: int) -> bool:
        """Link a file, durably; False if that can't be, or if somebody tampered with it."""
        try:
            if kind_of((status := disk.stat(source)).st_mode) is not None or status.st_size != size:
                return False
            disk.link(source, path)
        except OSError:  # no links here, too many, another file system, or its snapshot was deleted
            return False
        if self.durability == "full":  # whoever wrote it may not have waited for the disk
            descriptor = disk.open_update(path)
            try:
                disk.fsync(descriptor)
            finally:
                disk.close(descriptor)
        return True

    def write(self, path: Path, chunks: Chunks, *, hashed: bool = True) -> FileInfo:
        """Write one file, hashing its bytes beside it unless somebody did."""
        digest, size = _Digest(), 0
        descriptor = disk.create(path)
        try:
            for block in _blocks(chunks):
                if hashed:
                    digest.update(block)
                self._write_block(descriptor, block, offset=size)
                size += len(block)
            if self.durability == "full":
                disk.fsync(descriptor)
        finally:
            disk.close(descriptor)
            text = digest.text()
        return FileInfo(size, text)

    def _write_block(self, descriptor: int, block: memoryview, offset: int) -> None:
        """Write all of it; what lies in whole pages past the page cache, if it must be on the disk anyway."""
        if self.durability == "full" and offset % PAGE == 0 and _begins_at_page(block):
            block = block[_write_past_cache(descriptor, block) :]
        while block:
            block = block[disk.write(descriptor, block) :]

    def write_small(self, path: Path, data: bytes) -> None:
        """Write a file so that it is there as a whole or not at all, replacing an older one."""
        temporary = path.with_name(f".{path.name}{TEMPORARY}")
        try:
            self.write(temporary, [data])
        except FileExistsError:  # a crash left it
            disk.unlink(temporary)
            self.write(temporary, [data])
        disk.rename(temporary, path)
        self.sync_directory(path.parent)

    def write_in_place(self, path: Path, text: str) -> None:
        """Write a file of which only that it exists counts: its text may be torn."""
        descriptor = disk.open_update(path)
        try:
            disk.truncate(descriptor)
            disk.write(descriptor, text.encode(errors="replace"))
            if self.durability == "full":
                disk.fsync(descriptor)
        finally:
            disk.close(descriptor)
        self.sync_directory(path.parent)

    def sync_directory(self, path: Path) -> None:
        """Make the names in a directory durable."""
        if self.durability == "full":
            disk.fsync_directory(path)

    def make(self, path: Path) -> None:
        """Create a directory and what is missing above it; links may lead there."""
        if path.is_dir():
            return
        self.make(path.parent)
        with contextlib.suppress(FileExistsError):
            disk.mkdir(path)
        self.sync_directory(path.parent)
        self.sync_directory(path.parent.parent)  # who made the one above may have been killed before that was durable

    def make_own(self, path: Path) -> None:
        """The same for one inside of a run, which is no link."""
        if not disk.is_directory(path):
            self.make(path)


def _blocks(chunks: Chunks) -> Iterator[memoryview]:
    """The same bytes in pieces that are worth a system call: small chunks are gathered, large ones cut."""
    gathered = bytearray()
    for chunk in chunks:
        if not (view := memoryview(chunk)).nbytes:
            continue  # an array without elements can't be cast
        view = view.cast("B")
        if len(view) < SMALL:
            gathered += view
        if gathered and (len(view) >= SMALL or len(gathered) >= WRITE_SIZE):
            yield memoryview(gathered)
            gathered = bytearray()
        if len(view) >= SMALL:
            yield from (view[start : start + WRITE_SIZE] for start in range(0, len(view), WRITE_SIZE))
    if gathered:
        yield memoryview(gathered)


class _Digest:
    """The digest of a file, computed on a thread while the same bytes are on their way to the disk."""

    def __init__(self) -> None:
        self._hash = xxhash.xxh3_128()
        self._thread: ThreadPoolExecutor | None = None
        self._last: Future[None] | None = None

    def update(self, block: memoryview) -> None:
        """Go on with these bytes, which nobody may change before `text` is asked for."""
        if len(block) < SMALL and self._thread is None:
            self._hash.update(block)
            return
        self._thread = self._thread or ThreadPoolExecutor(1, "ckpt-hash")
        self._last = self._thread.submit(self._hash.update, block)  # one after the other

    def text(self) -> str:
        """As a manifest has it."""
        if self._thread is not None:
            self._thread.shutdown()
        if self._last is not None:
            self._last.result()
        return f"xxh3-128:{self._hash.hexdigest()}"


def _digest(chunks: Chunks) -> str:
    digest = xxhash.xxh3_128()
    for block in _blocks(chunks):
        digest.update(block)
    return f"xxh3-128:{digest.hexdigest()}"


def _alike(path: Path, chunks: Chunks) -> bool:
    """Whether a file may have the same bytes: a look at some places tells of most that were trained that it hasn't."""
    if len(chunks) != 1:
        return True
    view = memoryview(chunks[0]).cast("B")
    starts = range(len(view) // (2 * SAMPLES), len(view), len(view) // SAMPLES)
    try:
        samples = disk.read_samples(path, starts, SAMPLE)
        return all(found == view[start : start + SAMPLE] for start, found in zip(starts, samples, strict=True))
    except OSError:
        return False


def _begins_at_page(block: memoryview) -> bool:
    return not block.readonly and ctypes.addressof(ctypes.c_char.from_buffer(block)) % PAGE == 0


def _write_past_cache(descriptor: int, block: memoryview) -> int:
    """Write the whole pages of a block straight from its memory to the disk; how many bytes could be written so.

    It takes no processor from training, whereas the page cache copies every byte and drives others' pages out.
    """
    written, pages = 0, len(block) // PAGE * PAGE
    if pages < SMALL or not disk.bypass_cache(descriptor, True):
        return 0
    try:
        while written < pages:
            written += disk.write(descriptor, block[written:pages])
    except OSError as error:
        if error.errno != errno.EINVAL:  # this disk wants larger pages, or was interrupted within one
            raise
    finally:
        disk.bypass_cache(descriptor, False)
    return written
