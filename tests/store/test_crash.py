"""Interrupted at every system call, in several ways: what was committed stays, what was not is never listed.

Each test runs an operation once to count its calls, then again for every call, interrupted there.
"""

from __future__ import annotations

import errno
import itertools
import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from ckpt_callbacks.engine.moment import Progress
from ckpt_callbacks.errors import StoreError
from ckpt_callbacks.store import LocalStore, Manifest
from ckpt_callbacks.store.files import disk
from ckpt_callbacks.store.writing import SMALL

CHANGES = (
    *("mkdir", "create", "open_append", "open_update", "write", "truncate", "fsync", "close"),
    *("rename", "link", "symlink", "unlink", "rmdir", "fsync_directory"),
)
LARGE = mmap.mmap(-1, SMALL + 5000)  # its pages go past the cache, what is left over does not
LARGE.write(b"moments." * (len(LARGE) // 8))
CONTENT = {"model.bin": [b"weights" * 100], "state.bin": [LARGE], "state.json": [b"{}"]}


class Killed(BaseException):
    """The process is gone: nothing runs after it."""


class Calls:
    """The changing calls that the store makes, as they are made; the ``stop``-th is interrupted by ``how``."""

    def __init__(self, how: str, stop: int) -> None:
        self.how, self.stop = how, stop
        self.made: list[str] = []
        self.unsynced: dict[int, int] = {}  # descriptor -> inode, while bytes were written and not yet fsynced
        self.lost: set[int] = set()  # inodes that were closed so

    def intercept(self, name: str, real: Callable[..., object], *arguments: object) -> object:
        """Stand before one call."""
        self.made.append(name)
        count = len(self.made)
        if self.how == "kill" and count >= self.stop and name != "close":
            raise Killed
        if self.how == "power cut" and count >= self.stop and name != "close":
            raise Killed
        if self.how == "error" and count == self.stop:
            if name == "close":
                real(*arguments)
            raise OSError(errno.EIO, "Input/output error")
        if self.how == "full" and count >= self.stop and name in ("mkdir", "create", "write", "fsync"):
            raise OSError(errno.ENOSPC, "No space left on device")
        if self.how == "interrupt" and count == self.stop:
            if name == "close":
                real(*arguments)
            raise KeyboardInterrupt
        if name == "write" and self.how == "short":
            descriptor, data = arguments
            return real(descriptor, memoryview(data)[: max(1, len(data) // 3)])  # type: ignore[arg-type]
        self._watch(name, arguments)
        return None if name.startswith("fsync") else real(*arguments)  # what matters is when it is asked for

    def _watch(self, name: str, arguments: tuple[object, ...]) -> None:
        descriptor = arguments[0]
        if not isinstance(descriptor, int):
            return
        if name == "write":
            self.unsynced[descriptor] = os.fstat(descriptor).st_ino
        elif name == "fsync":
            self.unsynced.pop(descriptor, None)
        elif name == "close" and descriptor in self.unsynced:
            self.lost.add(self.unsynced.pop(descriptor))

    def cut_power(self, root: Path) -> None:
        """Take away the content of every file that was never fsynced: the worst that a power cut may do."""
        for path in root.rglob("*"):
            if path.is_file() and not path.is_symlink() and path.stat().st_ino in self.lost | {*self.unsynced.values()}:
                os.truncate(path, 0)


@contextmanager
def interrupted(how: str, stop: int, at: Path) -> Iterator[Calls]:
    """Interrupt the ``stop``-th changing call inside the block; give the calls that were made."""
    calls = Calls(how, stop)
    with pytest.MonkeyPatch.context() as patch:
        for name in CHANGES:
            real = getattr(disk, name)
            patch.setattr(disk, name, lambda *a, name=name, real=real: calls.intercept(name, real, *a))
        with suppress(Killed, KeyboardInterrupt, StoreError):
            yield calls
    if how == "power cut":
        calls.cut_power(at)


def draft(step: int) -> Manifest:
    """A snapshot of one step."""
    return Manifest.draft(progress=Progress(step=step))


def commit(store: LocalStore) -> None:
    """Save step 30."""
    store.commit(draft(30), CONTENT)


def commit_unchanged(store: LocalStore) -> None:
    """Save step 30 with the bytes of step 20: the large file is not written, but linked."""
    store.commit(replace(draft(30), parent=store.manifests()[-1].id), CONTENT)


def delete(store: LocalStore) -> None:
    """Delete the oldest."""
    store.delete(store.manifests()[0].id)


def demote(store: LocalStore) -> None:
    """Reduce the oldest to its weights."""
    store.demote(store.manifests()[0].id, lambda name: name.startswith("model"))


def first_commit(store: LocalStore) -> None:
    """Save into a directory that doesn't exist yet."""
    LocalStore(store.root / "inner" / "run").commit(draft(30), CONTENT)


def clean(store: LocalStore) -> None:
    """Remove what an earlier crash left."""
    (store.root / "snapshots" / ".000000005-aaaaaa.partial").mkdir(exist_ok=True)
    (store.root / "snapshots" / ".000000005-aaaaaa.partial" / "model.bin").write_bytes(b"torn")
    store.clean()


def pin_and_link(store: LocalStore) -> None:
    """Everything that is small."""
    newest = store.manifests()[-1].id
    store.pin(newest, "note")
    store.link("best", newest)
    store.journal.append("pinned", id=newest)
    store.unpin(newest)


@contextmanager
def fresh_store() -> Iterator[LocalStore]:
    """A store with two snapshots, of steps 10 and 20."""
    with TemporaryDirectory() as folder:
        fast = LocalStore(Path(folder) / "run", durability="none")
        for step in (10, 20):
            fast.link("latest", fast.commit(draft(step), CONTENT).id)
        yield LocalStore(fast.root)


def calls_of(operation: Callable[[LocalStore], None]) -> list[str]:
    """The changing calls of an operation that nothing interrupts."""
    with fresh_store() as store, interrupted("not", 0, store.root) as calls:
        operation(store)
    return calls.made


@pytest.mark.parametrize("how", ["kill", "power cut", "error", "full", "interrupt", "short"])
@pytest.mark.parametrize(
    "operation", [commit, commit_unchanged, delete, demote, first_commit, clean, pin_and_link], ids=lambda f: f.__name__
)
def test_interrupted_anywhere_nothing_is_lost(operation: Callable[[LocalStore], None], how: str) -> None:
    """Earlier snapshots verify, nothing half-done is listed, the same step can be saved again, and cleaning cleans."""
    total = len(calls_of(operation))
    assert total > 1
    for stop in range(1, total + 1):
        with fresh_store() as store:
            before = [manifest.id for manifest in store.manifests()]
            with interrupted(how, stop, store.root):
                operation(store)
            again = LocalStore(store.root, durability="none")
            check(again, before, may_lose=before[0] if operation is delete else None)


def check(store: LocalStore, before: list[str], may_lose: str | None) -> None:
    """What must be true after any interruption, seen by a new process."""
    listed = store.manifests()
    assert store.problems() == {}
    assert all(store.verify(manifest.id) == [] for manifest in listed)
    assert {*before} - {manifest.id for manifest in listed} <= {may_lose}
    assert {manifest.progress.step for manifest in listed} <= {10, 20, 30}
    found, stepped_over = store.newest_good()
    assert found == listed[-1]
    assert stepped_over == []
    assert store.leftovers() == []
    with store.lock():
        store.open()
        again = store.commit(draft(30), CONTENT)
    assert again.sequence == 1 + listed[-1].sequence
    assert [manifest.id for manifest in store.manifests()] == [*(manifest.id for manifest in listed), again.id]
    names = {path.name for path in (store.root / "snapshots").iterdir()}
    assert names == {manifest.id for manifest in store.manifests()}
    assert not [path for path in store.root.rglob("*.partial") if "inner" not in path.parts]


@pytest.mark.parametrize("how", ["error", "full", "interrupt"])
def test_a_commit_that_fails_cleans_up_after_itself(how: str) -> None:
    """Where the process lives on and the disk allows, no attempt stays behind - a full disk gets its space back."""
    for stop in range(1, len(calls_of(commit)) + 1):
        with fresh_store() as store:
            with interrupted(how, stop, store.root):
                commit(store)
            names = {path.name for path in (store.root / "snapshots").iterdir()}
            assert names == {manifest.id for manifest in store.manifests()}


def test_a_failed_commit_says_what_is_left() -> None:
    """The error names the step, the reason, and that older snapshots are intact."""
    with fresh_store() as store, pytest.MonkeyPatch.context() as patch:

        def full(descriptor: int, data: bytes) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr(disk, "write", full)
        with pytest.raises(StoreError, match=r"step 30.*No space left.*Earlier snapshots are intact.*free space"):
            commit(store)


def test_the_order_of_a_commit() -> None:
    """Data, then the manifest, then the names, each durable before the next."""
    write = ["create", "write", "fsync", "close"]
    large = ["create", "write", "write", "fsync", "close"]
    assert calls_of(commit) == [
        "mkdir",
        *(*write, *large, *write),
        *(*write, "rename", "fsync_directory"),
        *("rename", "fsync_directory"),
    ]


def test_a_linked_file_is_durable_too() -> None:
    """Whoever wrote it may not have waited for the disk."""
    write = ["create", "write", "fsync", "close"]
    linked = ["link", "open_update", "fsync", "close"]
    assert calls_of(commit_unchanged)[:13] == ["mkdir", *write, *linked, *write]


def test_the_order_of_a_deletion() -> None:
    """The manifest goes first, durably; the mark that this was a deletion goes last."""
    removal = [*["unlink"] * len(CONTENT), "fsync_directory", "unlink", "rmdir"]
    assert calls_of(delete) == ["rename", "fsync_directory", *removal]


def test_the_order_of_a_demotion() -> None:
    """What will go is on record before the manifest forgets it, and goes after that."""
    write = ["create", "write", "fsync", "close"]
    change = [*write, "rename", "fsync_directory"]
    assert calls_of(demote) == [*write, "fsync_directory", *change, "unlink", "unlink", "fsync_directory", "unlink"]


@pytest.mark.parametrize("how", ["kill", "power cut"])
def test_a_demotion_that_was_cut_short_is_finished(how: str) -> None:
    """Or undone: then nothing but its mark goes."""
    for stop in range(1, len(calls_of(demote)) + 1):
        with fresh_store() as store:
            with interrupted(how, stop, store.root):
                demote(store)
            with store.lock():
                store.open()
            first = store.manifests()[0]
            names = {path.name for path in store.path(first.id).iterdir()} - {"manifest.json"}
            assert names == set(first.files)
            assert (len(first.files) == len(CONTENT)) == (first.content == "full")


def test_without_durability_only_the_fsyncs_are_left_out() -> None:
    """The order of everything else is the same, so a killed process still loses nothing."""

    def commit_fast(store: LocalStore) -> None:
        LocalStore(store.root, durability="none").commit(draft(30), CONTENT)

    # Only what must be on the disk at once is written in two ways: past the page cache, and the end of the file.
    rest = [call for call in calls_of(commit) if not call.startswith("fsync")]
    assert [call for call, _ in itertools.groupby(calls_of(commit_fast))] == [
        call for call, _ in itertools.groupby(rest)
    ]
