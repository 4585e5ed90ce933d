"""Disks: a file system that forgets. Recorded calls are replayed; at any instant, it gives states that a power cut may
leave.

The model is that of ALICE and CrashMonkey, with as few promises as POSIX makes:

- What was written to a file lasts once *this file* is fsynced. Until then each 512-byte sector of each write may be
  there or not; where the file grew, what is missing is zeros, or the file ends early.
- What happened to names in a directory lasts once *this directory* is fsynced. Until then each change may be there or
  not, in any combination: no journal puts them in order, and an fsync of a file says nothing of its name.
- A rename is atomic: both its names changed, or neither. It lasts once every directory that it touched is fsynced.

What is there at the beginning is durable.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from tests.crash.calls import Call

__all__ = ["Disk", "State", "lay_out", "seen"]

SECTOR = 512
LARGE = 1 << 16

Content = bytes | Path
"""What a file holds: its bytes, or another file that has them."""

State = dict[str, "Content | str | None"]
"""What a power cut leaves: path -> a file's content, where a link points, or None for a directory."""

_HARMLESS = ("failed", "flock")


@dataclass
class _File:
    """A file: what lasts, and the changes since: (offset, bytes), or (-1, size) where it was cut or grown to a size."""

    lasts: Content = b""
    pending: list[tuple[int, bytes | int]] = field(default_factory=list)

    def content(self, chosen: Iterable[tuple[int, bytes | int]]) -> Content:
        """What it holds with these changes."""
        if not (chosen := list(chosen)):
            return self.lasts
        found = bytearray(self.lasts if isinstance(self.lasts, bytes) else self.lasts.read_bytes())
        for offset, change in chosen:
            if isinstance(change, int):
                found[change:] = bytes(max(0, change - len(found)))
            else:
                found[len(found) :] = bytes(max(0, offset - len(found)))
                found[offset : offset + len(change)] = change
        return bytes(found)

    def torn(self, rng: random.Random) -> Content:
        """What a power cut may leave of it now."""
        whole = self.content(self.pending)
        way = rng.choice(("none", "all", "first", "zeros", "ends early", "sectors", "sectors"))
        if way == "none" or not self.pending:
            return self.lasts
        if way == "all":
            return whole
        if way == "first":
            return self.content(self.pending[: rng.randrange(len(self.pending))])
        if way == "zeros":
            return self.content(_zeroed(self.pending))
        if way == "ends early":
            assert isinstance(whole, bytes)
            return whole[: rng.randrange(len(whole) + 1)]
        return self.content(self._some_sectors(rng))

    def _some_sectors(self, rng: random.Random) -> Iterator[tuple[int, bytes | int]]:
        for offset, change in self.pending:
            if isinstance(change, int):
                yield from [(offset, change)] if rng.random() < 0.5 else []
                continue
            for start in range(-(offset % SECTOR), len(change), SECTOR):
                if rng.random() < 0.5:
                    yield offset + max(start, 0), change[max(start, 0) : start + SECTOR]
            if rng.random() < 0.5:  # the file's length reached the disk, and these sectors didn't
                yield offset + len(change), b""


@dataclass
class _Link:
    """A symbolic link."""

    to: str


class _Directory:
    """A directory; what it holds stands in `Disk`, by (directory, name)."""


_Node = _File | _Link | _Directory
_Slot = tuple[_Directory, str]


@dataclass
class _Change:
    """What a call did to names, at once: slot -> what stands there now. ``open`` are directories yet to be fsynced."""

    slots: dict[_Slot, _Node | None]
    open: set[_Directory]


class Disk:
    """A file system in memory.

    Args:
        begins: a directory whose content is durable; its files are read where they are.
    """

    def __init__(self, begins: Path) -> None:
        self._root = _Directory()
        self._lasts: dict[_Slot, _Node | None] = {}
        self._pending: list[_Change] = []
        self._open: dict[int, _Node] = {}
        self._load(begins, self._root)
        self._now = dict(self._lasts)

    def _load(self, folder: Path, into: _Directory) -> None:
        for path in folder.iterdir():
            node: _Node = _Link(os.readlink(path)) if path.is_symlink() else _File(path)
            if path.is_dir() and not path.is_symlink():
                node = _Directory()
                self._load(path, node)
            self._lasts[into, path.name] = node

    # Replay ----------------------------------------------------------------------------------------------------------

    def make(self, call: Call) -> None:
        """Do what was recorded."""
        if call.name not in _HARMLESS:
            replay = getattr(self, f"_on_{call.name}", None)
            assert replay is not None, f"{call} is a call that this model doesn't know: teach it"
            replay(call)

    def _on_look(self, call: Call) -> None:
        self._open[call.descriptor] = self._at(call.path)

    def _on_open(self, call: Call) -> None:
        slot = self._slot(call.path)
        if self._now.get(slot) is None:
            assert call.flags & os.O_CREAT, f"{call} opened what isn't there"
            self._change({slot: _File()})
        found = self._open[call.descriptor] = self._at(call.path)
        if call.flags & os.O_TRUNC and isinstance(found, _File):
            found.pending.append((-1, 0))

    def _on_write(self, call: Call) -> None:
        self._file(call).pending.append((call.offset, call.data))

    _on_pwrite = _on_write

    def _on_ftruncate(self, call: Call) -> None:
        self._file(call).pending.append((-1, 0))  # the store knows no other

    def _on_fsync(self, call: Call) -> None:
        node = self._open[call.descriptor]
        if isinstance(node, _File):
            node.lasts, node.pending = node.content(node.pending), []
        else:
            assert isinstance(node, _Directory)
            for change in self._pending:
                change.open.discard(node)
            for change in [one for one in self._pending if not one.open]:
                self._settle(change)

    _on_fdatasync = _on_fsync

    def _settle(self, settled: _Change) -> None:
        """From now on it lasts, and with it that what earlier changes did to the same names is over."""
        self._lasts.update(settled.slots)
        earlier = self._pending[: self._pending.index(settled)]
        self._pending.remove(settled)
        for change in earlier:
            for slot in settled.slots:
                change.slots.pop(slot, None)

    def _on_mkdir(self, call: Call) -> None:
        self._change({self._slot(call.path): _Directory()})

    def _on_unlink(self, call: Call) -> None:
        self._change({self._slot(call.path): None})

    _on_remove = _on_rmdir = _on_unlink

    def _on_replace(self, call: Call) -> None:
        self._change({self._slot(call.path): None, self._slot(call.target): self._at(call.path)})

    _on_rename = _on_replace

    def _on_link(self, call: Call) -> None:
        self._change({self._slot(call.target): self._at(call.path)})

    def _on_symlink(self, call: Call) -> None:
        self._change({self._slot(call.target): _Link(call.path)})

    def _change(self, slots: dict[_Slot, _Node | None]) -> None:
        self._now.update(slots)
        self._pending.append(_Change(slots, {directory for directory, _ in slots}))

    def _slot(self, path: str) -> _Slot:
        *above, name = PurePosixPath(path).parts
        directory = self._root
        for part in above:
            found = self._now[directory, part]
            assert isinstance(found, _Directory)
            directory = found
        return directory, name

    def _at(self, path: str) -> _Node:
        found = self._root if path == "." else self._now[self._slot(path)]
        assert found is not None, path
        return found

    def _file(self, call: Call) -> _File:
        found = self._open[call.descriptor]
        assert isinstance(found, _File), call
        return found

    # Power cuts ------------------------------------------------------------------------------------------------------

    def least(self) -> Iterator[State]:
        """The least that a power cut leaves now: nothing but what must last."""
        yield self._state([], lambda file: file.lasts)

    def states(self, rng: random.Random, further: int) -> Iterator[State]:
        """What a power cut may leave now: the plain cases, and some more at random."""
        names = self._pending
        yield from self.least()
        yield self._state(names, lambda file: file.content(file.pending))
        yield self._state(names, lambda file: file.lasts)
        yield self._state(names, lambda file: file.content(_zeroed(file.pending)))
        for one in names:  # each that is pending, alone, and all but it
            yield self._state([one], lambda file: file.torn(rng))
            yield self._state([other for other in names if other is not one], lambda file: file.torn(rng))
        for _ in range(further):
            yield self._state([one for one in names if rng.random() < 0.5], lambda file: file.torn(rng))

    def _state(self, names: list[_Change], content: Callable[[_File], Content]) -> State:
        slots = dict(self._lasts)
        for change in names:
            slots.update(change.slots)
        held: dict[_Directory, dict[str, _Node]] = {}
        for (directory, name), node in slots.items():
            if node is not None:
                held.setdefault(directory, {})[name] = node
        contents: dict[int, Content] = {}  # a file with two names is the same under both
        state: State = {}

        def walk(directory: _Directory, prefix: str) -> None:
            for name, node in sorted(held.get(directory, {}).items()):
                if isinstance(node, _File):
                    if id(node) not in contents:
                        contents[id(node)] = content(node)
                    state[prefix + name] = contents[id(node)]
                elif isinstance(node, _Link):
                    state[prefix + name] = node.to
                else:
                    state[prefix + name] = None
                    walk(node, f"{prefix}{name}/")

        walk(self._root, "")
        return state


def _zeroed(pending: Iterable[tuple[int, bytes | int]]) -> list[tuple[int, bytes | int]]:
    """The same changes, but for the bytes: a file got its length, and its sectors were never written."""
    return [(offset, change if isinstance(change, int) else bytes(len(change))) for offset, change in pending]


def seen(folder: Path) -> State:
    """The state that a directory is in."""
    state: State = {}
    for path in sorted(folder.rglob("*")):
        link, name = path.is_symlink(), str(path.relative_to(folder))
        state[name] = os.readlink(path) if link else None if path.is_dir() else path
    return state


def lay_out(state: State, folder: Path) -> None:
    """Make a directory of a state. Large files get a further name: only small ones are ever written in place."""
    for name, what in state.items():
        path = folder / name
        if what is None:
            path.mkdir(parents=True)
        elif isinstance(what, str):
            path.symlink_to(what)
        elif isinstance(what, bytes):
            path.write_bytes(what)
        elif what.stat().st_size > LARGE:
            os.link(what, path)
        else:
            shutil.copyfile(what, path)
