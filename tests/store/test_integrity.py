"""Damage is found and named: each kind, in each file of a snapshot."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ckpt_callbacks.engine.moment import Progress
from ckpt_callbacks.errors import SnapshotNotFoundError
from ckpt_callbacks.state.memory.pages import fresh
from ckpt_callbacks.store import FileInfo, LocalStore, Manifest, integrity, load_directory, verify_directory
from ckpt_callbacks.store.files import disk

FILES = ["model.safetensors", "state.safetensors", "state.json", "manifest.json"]


@pytest.mark.parametrize("name", ["state.json", "model.safetensors.index.json"])
def test_a_size_is_looked_at_before_memory_is_asked_for(tmp_path: Path, name: str) -> None:
    """A tree without end, which a manifest promises to the byte, takes neither memory nor time."""
    size = 1 << 40
    (tmp_path / name).touch()
    os.truncate(tmp_path / name, size)
    draft = Manifest.draft(progress=Progress(step=1))
    manifest = draft.committed("000000001-abcdef", 1, None, {name: FileInfo(size, "xxh3-128:" + 32 * "0")})
    (tmp_path / "manifest.json").write_bytes(manifest.to_bytes())
    files, problems = load_directory(tmp_path, lambda size: pytest.fail(f"{size} bytes were asked for"))
    assert files == {}
    assert problems == verify_directory(tmp_path) == verify_directory(tmp_path, full=False)
    assert problems[0].startswith(f"{name} has 1,099,511,627,776 bytes: expected at most ")


def flip_first(path: Path) -> None:
    """Change the first byte."""
    content = path.read_bytes()
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])


def flip_middle(path: Path) -> None:
    """Change one bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


def truncate(path: Path) -> None:
    """Cut the end off."""
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    """Keep the name only."""
    os.truncate(path, 0)


def grow(path: Path) -> None:
    """Add a byte."""
    path.write_bytes(path.read_bytes() + b"{")


def remove(path: Path) -> None:
    """Take the file away."""
    path.unlink()


def replace_by_directory(path: Path) -> None:
    """Put a directory in its place."""
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "damage", [flip_first, flip_middle, truncate, empty, grow, remove, replace_by_directory], ids=lambda f: f.__name__
)
def test_damage_is_named_and_stepped_over(
    store: LocalStore,
    draft: Callable[..., Manifest],
    files: Callable[..., dict[str, list[bytes]]],
    damage: Callable[[Path], None],
    name: str,
) -> None:
    """The sentence names the file; resume finds the older snapshot, whatever happened to the newer one."""
    good, bad = (store.commit(draft(step), files(step)) for step in (10, 20))
    damage(store.path(bad.id) / name)
    problems = store.verify(bad.id)
    assert len(problems) == 1
    assert name in problems[0]
    assert store.verify(good.id) == []
    fresh = LocalStore(store.root)
    found, stepped_over = fresh.newest_good()
    assert found == good
    without_manifest = name == "manifest.json" and damage is remove
    assert [id for id, _ in stepped_over] == ([] if without_manifest else [bad.id])
    assert fresh.leftovers() == ([bad.id] if without_manifest else [])


def test_swapped_files_are_both_named(
    store: LocalStore, draft: Callable[..., Manifest], files: Callable[..., dict[str, list[bytes]]]
) -> None:
    """Two files of the same size under each other's name: only digests tell."""
    manifest = store.commit(draft(), {"a.bin": [b"first"], "b.bin": [b"other"]})
    path = store.path(manifest.id)
    (path / "a.bin").rename(path / "c.bin")
    (path / "b.bin").rename(path / "a.bin")
    (path / "c.bin").rename(path / "b.bin")
    assert [problem.partition(" ")[0] for problem in store.verify(manifest.id)] == ["a.bin", "b.bin"]
    assert store.verify(manifest.id, full=False) == []


def test_swapped_directories_are_named(
    store: LocalStore, draft: Callable[..., Manifest], files: Callable[..., dict[str, list[bytes]]]
) -> None:
    """A manifest knows its own name."""
    first, second = (store.path(store.commit(draft(step), files(step)).id) for step in (10, 20))
    first.rename(first.with_name("x"))
    second.rename(first)
    first.with_name("x").rename(second)
    for path in (first, second):
        assert "manifest.json is that of another snapshot" in store.verify(path.name)[0]


def test_bytes_that_are_no_safetensors_are_named(store: LocalStore, draft: Callable[..., Manifest]) -> None:
    """The digest may match and the official reader still refuse the file."""
    manifest = store.commit(draft(), {"model.safetensors": [b"\x08" + b"\0" * 20]})
    assert "model.safetensors can't be opened as safetensors" in store.verify(manifest.id)[0]


def test_a_quick_look_compares_sizes(
    store: LocalStore, draft: Callable[..., Manifest], files: Callable[..., dict[str, list[bytes]]]
) -> None:
    """It finds what is missing or cut short, and reads no data."""
    manifest = store.commit(draft(), files())
    flip_middle(store.path(manifest.id) / "model.safetensors")
    assert store.verify(manifest.id, full=False) == []
    truncate(store.path(manifest.id) / "model.safetensors")
    assert "model.safetensors has another size" in store.verify(manifest.id, full=False)[0]


def test_there_must_be_something_to_verify(store: LocalStore) -> None:
    """A name that nothing has is an error, not a clean bill."""
    with pytest.raises(SnapshotNotFoundError, match="no snapshot '000000001-abcdef'"):
        store.verify("000000001-abcdef")


def allocate(nbytes: int) -> np.ndarray:
    """Memory for a file."""
    return np.empty(nbytes, np.uint8)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", [flip_first, flip_middle, truncate, empty, grow, remove], ids=lambda f: f.__name__)
def test_what_is_read_into_memory_is_what_is_verified(
    store: LocalStore,
    draft: Callable[..., Manifest],
    files: Callable[..., dict[str, list[bytes]]],
    damage: Callable[[Path], None],
    name: str,
) -> None:
    """Both name the same damage; without any, the bytes are those that were written."""
    manifest = store.commit(draft(), files())
    found, problems = store.load(manifest.id, allocate)
    assert problems == []
    assert {name: bytes(data) for name, data in found.items()} == {n: b"".join(c) for n, c in files().items()}
    damage(store.path(manifest.id) / name)
    assert store.load(manifest.id, allocate)[1] == store.verify(manifest.id) != []


@pytest.mark.parametrize("extra", [-1, 0, 1, 4095, 4096, 5000])
@pytest.mark.parametrize("cached", [True, False])
def test_a_file_of_several_pieces(
    store: LocalStore,
    draft: Callable[..., Manifest],
    monkeypatch: pytest.MonkeyPatch,
    extra: int,
    cached: bool,
) -> None:
    """It is read by several threads, past the page cache or through it, whatever its size."""
    monkeypatch.setattr(integrity, "PIECE", 8192)
    monkeypatch.setattr(disk, "is_cached", lambda descriptor, offset: cached)
    content = np.random.default_rng(1).bytes(5 * 8192 + extra)
    manifest = store.commit(draft(), {"a.bin": [content]})
    found, problems = store.load(manifest.id, fresh)
    assert problems == []
    assert bytes(found["a.bin"]) == content


def test_to_ask_whether_a_file_is_cached_does_not_make_it_so(
    store: LocalStore, draft: Callable[..., Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A system fetches the page that it is asked for: the next one to read must not take that for the whole file."""
    monkeypatch.setattr(integrity, "PIECE", 4096)
    there: set[int] = set()
    past: list[bool] = []

    def is_cached(descriptor: int, offset: int) -> bool:
        page = offset // 4096
        was = page in there
        there.add(page)
        return was

    monkeypatch.setattr(disk, "is_cached", is_cached)
    monkeypatch.setattr(disk, "bypass_cache", lambda descriptor, on: past.append(on) or on)
    manifest = store.commit(draft(), {"a.bin": [np.random.default_rng(1).bytes(300_000)]})
    past.clear()
    for _ in range(3):
        assert store.load(manifest.id, fresh)[1] == []
    assert past == [True] * 3
    there |= set(range(100))
    assert store.load(manifest.id, fresh)[1] == []
    assert past == [True] * 3  # all of it is there: it comes through the cache


def test_where_threads_cannot_read_one_file(
    store: LocalStore, draft: Callable[..., Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A system without positioned reads has one place per open file."""
    monkeypatch.setattr(integrity, "PIECE", 4096)
    monkeypatch.setattr(disk, "is_cached", lambda descriptor, offset: True)
    monkeypatch.delattr(os, "preadv")
    content = np.random.default_rng(1).bytes(50_000)
    manifest = store.commit(draft(), {"a.bin": [content]})
    found, problems = store.load(manifest.id, fresh)
    assert problems == []
    assert bytes(found["a.bin"]) == content


def test_a_disk_that_wants_larger_pages_is_read_through_the_cache(
    store: LocalStore, draft: Callable[..., Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It refuses the read, which is no damage: the bytes come the usual way."""
    monkeypatch.setattr(integrity, "PIECE", 8192)
    past: list[bool] = []
    read_at = disk.read_at

    def refuses(descriptor: int, out: memoryview, offset: int) -> int:
        if past[-1]:
            raise OSError(errno.EINVAL, "Invalid argument")
        return read_at(descriptor, out, offset)

    monkeypatch.setattr(disk, "is_cached", lambda descriptor, offset: False)
    monkeypatch.setattr(disk, "bypass_cache", lambda descriptor, on: past.append(on) or on)
    content = np.random.default_rng(1).bytes(50_000)
    manifest = store.commit(draft(), {"a.bin": [content]})
    monkeypatch.setattr(disk, "read_at", refuses)
    found, problems = store.load(manifest.id, fresh)
    assert problems == []
    assert bytes(found["a.bin"]) == content
    assert set(past) == {True, False}
