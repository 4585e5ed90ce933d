"""The trace of a run, `trace.bin`: one fingerprint for each step, so that steps computed again can be compared.

A ring of `SLOTS` records of 32 bytes; the record of the n-th batch stands in slot n modulo `SLOTS`, so that the file
never grows beyond 1 MiB and the newest steps are always there. Each is handed to the kernel by one write within one
page, which survives SIGKILL; it is not fsynced, because a proof that a power cut has eaten is missed by nobody. Each
ends with a CRC of its other bytes: a bit that flipped on the disk must not accuse the user's code. One whose CRC is
wrong is as one that is missing.

Each process that trains writes under an attempt number of its own. What an earlier attempt wrote beyond the end of the
last one belongs to a course that the run may have left, and is not compared with.
"""

from __future__ import annotations

import binascii
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import xxhash

from ckpt_callbacks.messages import warn
from ckpt_callbacks.store.files import disk
from ckpt_callbacks.store.remedies import remedy

__all__ = ["Step", "Trace", "fingerprint"]

SLOTS = 32_768
_MAGIC = b"ckpttrac"
_HEADER = struct.Struct("<8sII")  # magic, format, slots; padded to the size of a record
_BODY = struct.Struct("<QdQIH")  # batches, loss, fingerprint, step, attempt
_SIZE = _BODY.size + 2  # and its check
MAX_BYTES = _SIZE * (1 + SLOTS)
_MAX_ATTEMPT = 0xFFFF
_DOUBLE = struct.Struct("<d")
_FORMAT = 2


class Step(NamedTuple):
    """What one step gave.

    Attributes:
        batches: batches trained on since the run began, this step's included.
        step: optimizer steps taken since the run began.
        loss: for people.
        fingerprint: 64 bits of all that is compared.
    """

    batches: int
    step: int
    loss: float
    fingerprint: int


def fingerprint(*values: float) -> int:
    """64 bits that tell whether numbers are bit for bit the same: one number's own bits, or a digest of several."""
    if len(values) == 1:
        return int.from_bytes(_DOUBLE.pack(values[0]), "little")
    return xxhash.xxh3_64_intdigest(struct.pack(f"<{len(values)}d", *values))


class Trace:
    """The steps of a run.

    A trace that can't be kept is worth a warning, once, never a failed training.

    Args:
        path: the file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file: int | None = None
        self._attempt = 1

    def open(self, *, afresh: bool = False) -> None:
        """Begin to record, as a new attempt.

        Args:
            afresh: forget what is there: this run does not carry on from it.
        """
        self.close()
        try:
            found = self._content()
            self._attempt = 1 + max((attempt for _, attempt in _records(found or b"")), default=0)
            self._file = disk.open_update(self.path)
            if found is None:
                warn(f"{self.path} is not a trace of this version, or was damaged: it is begun anew")
            if found is None or (found and afresh) or self._attempt > _MAX_ATTEMPT:
                disk.truncate(self._file)
                self._attempt = 1
            os.pwrite(self._file, _HEADER.pack(_MAGIC, _FORMAT, SLOTS), 0)
        except OSError as error:
            self._give_up(error)

    def record(self, batches: int, step: int, loss: float, fingerprint: int) -> None:
        """Note a `Step`, given by its parts. Some microseconds; thread-safe."""
        if self._file is None:
            return
        body = _BODY.pack(batches, loss, fingerprint, step & 0xFFFFFFFF, self._attempt)
        try:
            os.pwrite(self._file, body + _check(body), _SIZE * (1 + batches % SLOTS))
        except OSError as error:
            self._give_up(error)

    def after(self, batches: int) -> dict[int, Step]:
        """The steps on record that came after ``batches`` batches, up to where the last attempt ended, by batches."""
        records = self._read()
        last = max((attempt for _, attempt in records), default=0)
        end = max((step.batches for step, attempt in records if attempt == last), default=0)
        return {step.batches: step for step, _ in records if batches < step.batches <= end}

    def damaged(self) -> int:
        """How many records are not as they were written. While a process trains, one may just be written."""
        try:
            data = self._content() or b""
        except OSError:
            return 0
        return sum(any(record) and not _is_whole(record) for record in _slots(data))

    def close(self) -> None:
        """Stop recording."""
        if self._file is not None:
            disk.close(self._file)
            self._file = None

    def _read(self) -> list[tuple[Step, int]]:
        """Every step on record, with its attempt; nothing if the disk refuses: no proof is worth a resume."""
        try:
            return _records(self._content() or b"")
        except OSError:
            return []

    def _content(self) -> bytes | None:
        """The whole file, or nothing if there is none; None if what lies there can't be one of ours."""
        try:
            data = disk.read(self.path, MAX_BYTES + 1)
        except FileNotFoundError:
            return b""
        ours = not data or (data.startswith(_HEADER.pack(_MAGIC, _FORMAT, SLOTS)) and len(data) <= MAX_BYTES)
        return data if ours else None

    def _give_up(self, error: OSError) -> None:
        self.close()
        warn(
            f"{self.path} can't be written ({error}); training goes on, and its next resume can't be verified by it. "
            f"{remedy(error)}"
        )


def _check(body: bytes) -> bytes:
    """CRC-16 (polynomial 0x1021): tells of every flip of one or two bits, and of nearly all else."""
    return binascii.crc_hqx(body, 0xFFFF).to_bytes(2, "little")


def _is_whole(record: bytes) -> bool:
    return record[_BODY.size :] == _check(record[: _BODY.size])


def _slots(data: bytes) -> Iterator[bytes]:
    """The records of a file, from slot 0 on; zeros where there is none."""
    return (data[start : start + _SIZE] for start in range(_SIZE, len(data) - _SIZE + 1, _SIZE))


def _records(data: bytes) -> list[tuple[Step, int]]:
    found = []
    for slot, record in enumerate(_slots(data)):
        batches, loss, bits, number, attempt = _BODY.unpack_from(record)
        if batches and batches % SLOTS == slot and _is_whole(record):
            found.append((Step(batches, number, loss, bits), attempt))
    return found
