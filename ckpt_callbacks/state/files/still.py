"""Still: whether tensors of a staged file are, bit for bit, those of a file on disk."""

from __future__ import annotations

from collections.abc import Set
from io import FileIO
from pathlib import Path

from ckpt_callbacks.door import reading
from ckpt_callbacks.state.memory.pages import Bytes
from ckpt_callbacks.state.tensors.safetensors_file import Layout

__all__ = ["is_still"]

PIECE = 1 << 18
"""Bytes that are read at a time: where training goes on, the first piece tells."""


def is_still(path: Path, layout: Layout, data: Bytes, names: Set[str]) -> bool:
    """Whether none of these tensors has changed since ``path`` was written.

    Nothing is mapped: a disk that fails is an error here, and would end the process there.

    Args:
        path: a file of an earlier snapshot.
        layout: of the staged one; a file that is laid out otherwise counts as changed.
        data: its bytes.
        names: which tensors are looked at; those of other files are passed over.

    Raises:
        OSError: the file is not there, or can't be read.
    """
    spans = [span for name, span in layout.spans.items() if name in names]
    with reading(path) as file:
        return _has(file, 0, layout.header) and all(
            _has(file, begin, data[begin : min(begin + PIECE, stop)].data)
            for start, stop in spans
            for begin in range(start, stop, PIECE)
        )


def _has(file: FileIO, offset: int, expected: bytes | memoryview) -> bool:
    file.seek(offset)
    return file.read(len(expected)) == expected
