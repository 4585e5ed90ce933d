"""Damages: what can happen to the bytes of files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Damage", "of_a_file", "of_a_pair"]

LARGE = 1 << 14
"""From how many bytes on not every one of a file is tried."""

PLACES = 500
"""At about how many places a large file is tried, beside its first bytes."""

BEGINNING = 1 << 8
"""So many bytes at the beginning of a large file are tried as those of a small one: there its header is."""


@dataclass(frozen=True)
class Damage:
    """What has happened.

    Attributes:
        kind: in a word or two, for counting.
        files: the files that are not as they were, by their paths within the run -> their bytes now; None: gone.
    """

    kind: str
    files: Mapping[str, bytes | None]

    def do(self, run: Path) -> None:
        """Let it happen to a run."""
        for name, content in self.files.items():
            if content is None:
                (run / name).unlink()
            else:
                (run / name).write_bytes(content)

    def __str__(self) -> str:
        return f"{self.kind}: {', '.join(self.files)}"


def of_a_file(name: str, whole: bytes, stride: int = 1) -> Iterator[tuple[str, Damage]]:
    """Where, and what, of all that can happen to one file alone.

    Args:
        name: its path within the run.
        whole: its bytes.
        stride: only each so many-th place is tried.
    """
    places = list(_places(len(whole), stride))
    for place in places:
        flipped = bytes([whole[place] ^ 1 << place % 8])
        yield f"byte {place}", Damage("flipped", {name: whole[:place] + flipped + whole[place + 1 :]})
    for length in places:
        yield f"{length} of {len(whole)} bytes", Damage("cut", {name: whole[:length]})
    for more in (b"\n", b" ", b"\0"):
        yield repr(more), Damage("longer", {name: whole + more})
    yield "all of it", Damage("removed", {name: None})


def of_a_pair(one: str, other: str, files: Mapping[str, bytes]) -> Iterator[tuple[str, Damage]]:
    """Two files in each other's place, unless they are the same."""
    if files[one] != files[other]:
        yield f"{one} and {other}", Damage("swapped", {one: files[other], other: files[one]})


def _places(size: int, stride: int) -> Iterator[int]:
    """The places within a file of that size that are tried; the last one always is."""
    if size <= LARGE:
        tried = {*range(0, size, stride)}
    else:
        tried = {*range(0, BEGINNING, stride), *range(0, size, stride * (size // PLACES))}
    yield from sorted(tried | {size - 1})
