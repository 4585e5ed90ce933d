"""The store on a file system: what is committed is there, whole, in order, until it is deleted."""

from __future__ import annotations

import errno
import json
import mmap
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import xxhash
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ckpt_callbacks import limits
from ckpt_callbacks.engine.moment import Progress
from ckpt_callbacks.errors import (
    ConfigurationError,
    CorruptSnapshotError,
    StoreError,
)
from ckpt_callbacks.store import LocalStore, Manifest, verify_directory, writing
from ckpt_callbacks.store import local as local_module
from ckpt_callbacks.store.files import disk
from ckpt_callbacks.store.writing import SMALL

Draft = Callable[..., Manifest]
Files = Callable[..., dict[str, list[bytes]]]


def test_a_snapshot_is_a_directory_that_anyone_can_read(store: LocalStore, draft: Draft, files: Files) -> None:
    """The layout of the contract: the step in the name, the files as given, a manifest with sizes and digests."""
    manifest = store.commit(draft(1200), files(7))
    path = store.root / "snapshots" / manifest.id
    assert manifest.id.startswith("000001200-")
    assert len(manifest.id) == 9 + 1 + 6
    assert {entry.name for entry in path.iterdir()} == {"manifest.json", *files()}
    for name, chunks in files(7).items():
        content = (path / name).read_bytes()
        assert content == b"".join(chunks)
        assert manifest.files[name].size == len(content)
        assert manifest.files[name].digest == "xxh3-128:" + xxhash.xxh3_128_hexdigest(content)
    assert Manifest.from_bytes((path / "manifest.json").read_bytes()) == manifest


@pytest.mark.parametrize("refuses", ["nothing", "the mode", "a write"])
def test_large_files_go_past_the_page_cache(
    refuses: str, store: LocalStore, draft: Draft, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole pages do, the rest of the file doesn't; where the file system refuses, the file is the same."""
    memory = mmap.mmap(-1, 3 * SMALL + 5)
    memory.write(os.urandom(len(memory)))
    past, modes = [], {}

    def bypass_cache(descriptor: int, on: bool) -> bool:
        modes[descriptor] = on and refuses != "the mode"
        return modes[descriptor]

    def write(descriptor: int, data: memoryview) -> int:
        if modes.get(descriptor):
            if refuses == "a write":
                raise OSError(errno.EINVAL, "Invalid argument")
            past.append(len(data))
        return os.write(descriptor, data)

    monkeypatch.setattr(disk, "bypass_cache", bypass_cache)
    monkeypatch.setattr(disk, "write", write)
    id = store.commit(draft(), {"large": [memory], "small": [b"x"]}).id
    assert (store.path(id) / "large").read_bytes() == memory[:]
    assert store.verify(id) == []
    assert past == ([3 * SMALL] if refuses == "nothing" else [])
    assert not any(modes.values())


def test_a_file_system_is_asked_whether_writes_can_go_past_its_cache(tmp_path: Path) -> None:
    """What is written in either mode is the same file."""
    memory = mmap.mmap(-1, 8192)
    memory.write(os.urandom(8192))
    descriptor = disk.create(tmp_path / "f")
    disk.bypass_cache(descriptor, True)
    assert disk.write(descriptor, memoryview(memory)) == 8192
    disk.bypass_cache(descriptor, False)
    disk.write(descriptor, b"end")
    disk.close(descriptor)
    assert (tmp_path / "f").read_bytes() == memory[:] + b"end"


LARGE = os.urandom(SMALL)


def inodes(store: LocalStore, name: str) -> list[int]:
    """Which file lies under a name in each snapshot, oldest first."""
    return [(store.path(manifest.id) / name).stat().st_ino for manifest in store.manifests()]


def test_what_the_parent_has_is_not_written_again(store: LocalStore, draft: Draft) -> None:
    """A large file of the same bytes is linked, whatever its name; each snapshot is complete, also alone."""
    first = store.commit(draft(1), {"a": [LARGE], "b": [b"small"]})
    second = store.commit(draft(2), {"c": [LARGE[:9], LARGE[9:]], "b": [b"small"]})
    third = store.commit(draft(3), {"a": [LARGE[::-1]], "b": [b"small"]})
    assert (store.path(first.id) / "a").samefile(store.path(second.id) / "c")
    assert len(set(inodes(store, "b"))) == 3
    store.delete(first.id)
    assert [store.verify(one.id) for one in (second, third)] == [[], []]
    assert (store.path(second.id) / "c").read_bytes() == LARGE


def test_a_look_at_some_places_saves_time_and_decides_nothing(
    store: LocalStore, draft: Draft, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of the parent's size that was trained is known by a few bytes; one other byte anywhere is found, too."""
    hashed: list[bool] = []
    digest = writing._digest
    monkeypatch.setattr(writing, "_digest", lambda chunks: hashed.append(True) or digest(chunks))
    trained = bytes(byte ^ 1 for byte in LARGE)
    nearly = LARGE[:-1] + bytes([LARGE[-1] ^ 1])
    manifests = [store.commit(draft(step), {"a": [content]}) for step, content in enumerate((LARGE, trained))]
    assert not hashed
    manifests += [store.commit(draft(3, parent=manifests[0].id), {"a": [nearly]})]
    assert hashed
    assert len(set(inodes(store, "a"))) == 3
    assert [store.verify(manifest.id) for manifest in manifests] == [[], [], []]


@pytest.mark.parametrize("obstacle", ["no links", "deleted", "cut", "another run"])
def test_what_cannot_be_linked_is_written(
    obstacle: str, store: LocalStore, draft: Draft, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A snapshot never depends on it."""
    first = store.commit(draft(1), {"a": [LARGE]})
    if obstacle == "no links":
        monkeypatch.setattr(disk, "link", lambda source, target: os.link("/dev/null/no", target))
    elif obstacle == "deleted":
        store.delete(first.id)
    elif obstacle == "cut":
        os.truncate(store.path(first.id) / "a", 5)
    else:
        store = LocalStore(tmp_path / "other")
    second = store.commit(draft(2, parent=first.id), {"a": [LARGE]})
    assert store.verify(second.id) == []
    assert (store.path(second.id) / "a").stat().st_nlink == 1


def test_a_fresh_store_is_empty_and_looking_creates_nothing(store: LocalStore) -> None:
    """Reading a run that isn't there gives nothing, and leaves nothing."""
    assert not store.exists()
    assert (store.manifests(), store.records(), store.problems(), store.pins()) == ([], [], {}, {})
    assert store.newest_good() == (None, [])
    assert store.describe() == {}
    assert not store.root.exists()


def test_opening_writes_the_run_once(store: LocalStore) -> None:
    """`run.json` keeps its id for good."""
    facts = store.open()
    assert facts["format"] == 1
    assert store.exists()
    assert LocalStore(store.root).open() == facts == store.describe()


def test_a_run_of_a_newer_format_is_refused(store: LocalStore) -> None:
    """Rather than written into."""
    store.open()
    (store.root / "run.json").write_text('{"format": 2}')
    with pytest.raises(StoreError, match="Install a newer ckpt_callbacks"):
        store.open()


def test_sequence_and_parent_follow_the_commits(store: LocalStore, draft: Draft, files: Files) -> None:
    """Order is the order of commits, whatever the steps and clocks say; the draft may name another parent."""
    ids = [store.commit(draft(step), files()).id for step in (30, 10, 20)]
    assert [manifest.id for manifest in store.manifests()] == ids
    assert [manifest.sequence for manifest in store.manifests()] == [1, 2, 3]
    assert [manifest.parent for manifest in store.manifests()] == [None, ids[0], ids[1]]
    again = LocalStore(store.root)
    assert again.commit(draft(40, parent=ids[0]), files()).parent == ids[0]
    assert again.commit(draft(50), files()).sequence == 5


def test_nine_digits_are_not_a_limit(store: LocalStore, draft: Draft, files: Files) -> None:
    """999 comes before 1000, and a step of more digits still works."""
    steps = [999, 1000, 10**9 - 1, 10**9]
    for step in steps:
        store.commit(draft(step), files())
    assert [manifest.progress.step for manifest in store.manifests()] == steps
    assert not store.verify(store.manifests()[-1].id)


def test_the_same_step_can_be_saved_again(store: LocalStore, draft: Draft, files: Files) -> None:
    """Each attempt has a name of its own."""
    assert store.commit(draft(10), files(1)).id != store.commit(draft(10), files(2)).id
    assert len(store.manifests()) == 2


def test_large_and_small_pieces_make_the_same_file(store: LocalStore, draft: Draft) -> None:
    """Pieces may be bytes, arrays or views of any size; what counts is their bytes in order."""
    content = os.urandom(3 * SMALL + 17)
    pieces: list[bytes | memoryview] = [content[:3], b"", memoryview(content)[3 : 2 * SMALL]]
    pieces += [bytes([byte]) for byte in content[2 * SMALL : 2 * SMALL + 50]]
    pieces += [memoryview(bytearray(content[2 * SMALL + 50 :])).cast("B")]
    manifest = store.commit(draft(), {"data.bin": pieces, "empty.bin": []})
    assert (store.path(manifest.id) / "data.bin").read_bytes() == content
    assert manifest.files["empty.bin"].size == 0
    assert not store.verify(manifest.id)


@pytest.mark.parametrize("name", ["../escape", "manifest.json", ".hidden", "a/b", ""])
def test_a_file_name_that_leads_elsewhere_is_refused(store: LocalStore, draft: Draft, name: str) -> None:
    """Before anything is written."""
    with pytest.raises(StoreError, match="plain name"):
        store.commit(draft(), {name: [b"x"]})
    assert not store.root.exists()


def test_an_error_in_the_data_leaves_nothing(store: LocalStore, draft: Draft, files: Files) -> None:
    """The error arrives as it is; the attempt is gone and the older snapshot is intact."""

    def broken() -> Iterator[bytes]:
        yield b"some"
        raise ValueError("the tensor is gone")

    kept = store.commit(draft(10), files())
    with pytest.raises(ValueError, match="the tensor is gone"):
        store.commit(draft(20), {"model.safetensors": broken()})
    assert [entry.name for entry in (store.root / "snapshots").iterdir()] == [kept.id]


def test_delete_removes_all_of_a_snapshot_and_its_links(store: LocalStore, draft: Draft, files: Files) -> None:
    """And only of that one; deleting what isn't there is no error."""
    first, second = (store.commit(draft(step), files()) for step in (10, 20))
    store.link("best", first.id)
    store.link("latest", second.id)
    assert store.delete(first.id)
    assert not store.delete(first.id)
    assert not (store.root / "best").is_symlink()
    assert (store.root / "latest" / "manifest.json").is_file()
    assert [entry.name for entry in (store.root / "snapshots").iterdir()] == [second.id]


def test_files_that_somebody_keeps_open_are_removed_later(
    store: LocalStore, draft: Draft, files: Files, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A network file system may refuse to empty a directory; training goes on and the next start cleans."""

    def busy(path: Path) -> None:
        raise OSError(errno.ENOTEMPTY, "Directory not empty")

    id = store.commit(draft(), files()).id
    with monkeypatch.context() as patch:
        patch.setattr(disk, "rmdir", busy)
        assert store.delete(id)
        assert store.clean() == [id]
    assert "can't be removed now" in caplog.text
    assert store.manifests() == []
    assert store.leftovers() == []
    assert store.clean() == [id]
    assert not store.path(id).exists()


def of_weights(name: str) -> bool:
    """Whether a file stays."""
    return not name.startswith("state.s")


def test_a_demotion_leaves_the_weights(store: LocalStore, draft: Draft, files: Files) -> None:
    """A snapshot of weights under the same name, at the same place in the order; the rest of its bytes are gone."""
    old, new = (store.commit(draft(step), files(step)) for step in (1, 2))
    assert store.demote(old.id, of_weights)
    found = store.manifests()[0]
    assert (found.id, found.sequence, found.content, found.metrics) == (old.id, 1, "weights", old.metrics)
    assert sorted(path.name for path in store.path(old.id).iterdir()) == [
        *("manifest.json", "model.safetensors", "state.json")
    ]
    assert store.verify(old.id) == []
    assert found.size < old.size
    assert store.newest_good("full")[0] == new
    assert not store.demote(old.id, of_weights)
    assert not store.demote("000000009-abcdef", of_weights)


def test_what_is_read_while_it_is_demoted_is_read_again(
    store: LocalStore, draft: Draft, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader beside the run must not call a file missing that the manifest no longer promises."""
    manifest = store.commit(draft(), files())
    stat = disk.stat

    def later(path: Any) -> Any:
        if str(path).endswith("state.safetensors"):
            monkeypatch.setattr(disk, "stat", stat)
            store.demote(manifest.id, of_weights)
        return stat(path)

    monkeypatch.setattr(disk, "stat", later)
    assert verify_directory(store.path(manifest.id)) == []


def test_lines_that_training_left_are_told_apart(store: LocalStore, draft: Draft, files: Files) -> None:
    """The newest manifest says which ranges of snapshots it has nothing to do with."""
    for step in (1, 2, 3):
        store.commit(draft(step), files(step))
    store.commit(replace(draft(2), abandoned=((2, 3),)), files(4))
    store.commit(replace(draft(1), abandoned=((2, 3), (1, 4))), files(5))
    assert [(record.step, record.line) for record in store.records()] == [(1, 2), (2, 1), (3, 1), (2, 2), (1, 0)]


def test_nothing_is_written_that_no_reader_takes(
    store: LocalStore, draft: Draft, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tree, an index or a manifest that is too large is an error when it is saved, not when it is needed."""
    store.commit(draft(), files())
    monkeypatch.setattr(limits, "TREE", 100)
    with pytest.raises(StoreError, match=r"step 20 was not .* state\.json has 101 bytes: expected at most 100\."):
        store.commit(draft(20), files() | {"state.json": [b"[", b" " * 99, b"]"]})
    store.commit(draft(30), files() | {"state.json": [b"[", b" " * 98, b"]"]})
    monkeypatch.setattr(limits, "PARSED", 200)
    with pytest.raises(StoreError, match=r"state\.json would take some 280 bytes of memory: expected at most 200\."):
        store.commit(draft(40), files() | {"state.json": [b"[[]", b",[]", b"]"], "a.txt": [b"{" * 90]})
    monkeypatch.setattr(limits, "PARSED", 1 << 20)
    monkeypatch.setattr(limits, "INDEX", 10)
    with pytest.raises(StoreError, match=r"index\.json has 11 bytes: expected at most 10\."):
        store.commit(draft(40), files() | {"model.safetensors.index.json": [b" " * 11]})
    with pytest.raises(StoreError, match=r"manifest\.json has 16,.* bytes: expected at most 16,777,216\."):
        store.commit(draft(40, note="x" * (16 << 20)), files())
    with pytest.raises(StoreError, match=r"manifest\.json would take some .* bytes of memory: expected at most 33,5"):
        store.commit(draft(40, note="{" * 200_000), files())
    assert [one.progress.step for one in store.manifests()] == [10, 30]
    assert not list(store.root.rglob(".*.partial"))


def test_what_is_not_a_snapshot_is_not_listed(store: LocalStore, draft: Draft, files: Files) -> None:
    """A directory without manifest, an attempt, a stray file: none is a snapshot, and cleaning takes the first two."""
    manifest = store.commit(draft(), files())
    snapshots = store.root / "snapshots"
    shutil.copytree(snapshots / manifest.id, snapshots / ".000000099-abcdef.partial")
    shutil.copytree(snapshots / manifest.id, snapshots / "000000098-abcdef")
    (snapshots / "000000098-abcdef" / "manifest.json").unlink()
    (snapshots / "notes.txt").write_text("mine")
    assert [found.id for found in store.manifests()] == [manifest.id]
    assert store.problems() == {}
    assert store.leftovers() == ["000000098-abcdef"]
    assert sorted(store.clean()) == [".000000099-abcdef.partial"]
    assert [path.name for path in store.aside()] == ["000000098-abcdef"]
    assert {entry.name for entry in snapshots.iterdir()} == {manifest.id, "notes.txt"}


def test_opening_cleans_only_for_the_holder_of_the_lock(store: LocalStore) -> None:
    """Another process's attempt is none of our business."""
    store.open()
    attempt = store.root / "snapshots" / ".000000001-abcdef.partial"
    attempt.mkdir()
    store.open()
    assert attempt.is_dir()
    with store.lock():
        store.open()
    assert not attempt.exists()


def test_two_stores_in_one_process_take_turns(tmp_path: Path, draft: Draft) -> None:
    """A second callback that opens the run does not clean away what the first one is writing."""
    first, second = LocalStore(tmp_path / "run"), LocalStore(tmp_path / "run")
    begun, go = threading.Event(), threading.Event()

    def slowly() -> Iterator[bytes]:
        begun.set()
        assert go.wait(10)
        yield b"data"

    with first.lock():
        writer = threading.Thread(target=first.commit, args=(draft(), {"data.bin": slowly()}))
        writer.start()
        assert begun.wait(10)
        opener = threading.Thread(target=second.open)
        opener.start()
        go.set()
        writer.join()
        opener.join()
    assert [second.verify(manifest.id) for manifest in second.manifests()] == [[]]
    assert second.commit(draft(), {}).sequence == 2


def test_an_unreadable_manifest_is_named_and_hides_nothing_else(store: LocalStore, draft: Draft, files: Files) -> None:
    """Listing goes on without it, `problems` says why, resume steps over it, and asking for it fails loudly."""
    good, bad = (store.commit(draft(step), files()) for step in (10, 20))
    (store.path(bad.id) / "manifest.json").write_text("{}")
    assert [record.id for record in store.records()] == [good.id]
    assert list(store.problems()) == [bad.id]
    found, stepped_over = store.newest_good()
    assert found == good
    assert [id for id, _ in stepped_over] == [bad.id]
    with pytest.raises(CorruptSnapshotError, match="'format'"):
        store.manifest(bad.id)


def test_a_renamed_snapshot_is_named(store: LocalStore, draft: Draft, files: Files) -> None:
    """A directory that holds another snapshot's manifest would be counted twice, or under a wrong name."""
    manifest = store.commit(draft(), files())
    shutil.copytree(store.path(manifest.id), store.root / "snapshots" / "000000011-copy00")
    assert [found.id for found in store.manifests()] == [manifest.id]
    assert "that of another snapshot" in store.problems()["000000011-copy00"]
    assert "that of another snapshot" in store.verify("000000011-copy00")[0]


def test_the_newest_good_one_of_each_content(store: LocalStore, draft: Draft, files: Files) -> None:
    """A snapshot of weights can't be resumed from, so an older full one is found, and nothing was stepped over."""
    full = store.commit(draft(10), files())
    weights = store.commit(draft(20, content="weights"), files())
    assert store.newest_good("full") == (full, [])
    assert store.newest_good("weights") == (weights, [])


def test_a_manifest_is_read_again_only_when_it_changes(
    store: LocalStore, draft: Draft, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Listing is cheap: one parse per manifest and store."""
    for step in range(5):
        store.commit(draft(step), files())
    again = LocalStore(store.root)
    before = again.manifests()

    def read_again(path: Path) -> Manifest:
        raise AssertionError(f"{path} did not change")

    monkeypatch.setattr(local_module, "read_manifest", read_again)
    assert again.manifests() == before


def test_a_relative_directory_stays_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, draft: Draft, files: Files
) -> None:
    """A program that changes its directory while it trains keeps writing to the same run."""
    monkeypatch.chdir(tmp_path)
    store = LocalStore("run")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    store.commit(draft(), files())
    assert (tmp_path / "run" / "snapshots").is_dir()


def test_an_unknown_durability_is_refused(tmp_path: Path) -> None:
    """At construction, with what is known."""
    with pytest.raises(ConfigurationError, match="expected 'full' or 'none'"):
        LocalStore(tmp_path, durability="some")  # type: ignore[arg-type]


def test_a_place_that_can_not_be_written_is_an_error_that_helps(tmp_path: Path, draft: Draft) -> None:
    """A file where the run should be."""
    (tmp_path / "run").write_text("a file")
    for attempt in (LocalStore(tmp_path / "run").open, LocalStore(tmp_path / "run").lock):
        with pytest.raises(StoreError, match=r"Choose (a|another) directory|Check that"):
            attempt()


class StoreAgainstDict(RuleBasedStateMachine):
    """Whatever is done in whatever order, the store holds what a dict would hold."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.store = LocalStore(Path(self.folder.name) / "run", durability="none")
        self.model: dict[str, bytes] = {}
        self.pinned: set[str] = set()

    def teardown(self) -> None:
        """Leave nothing behind."""
        self.folder.cleanup()

    def one_of_them(self, data: st.DataObject) -> str:
        """An id, drawn by its place: ids are random, what Hypothesis draws must not be."""
        return list(self.model)[data.draw(st.integers(0, len(self.model) - 1))]

    @rule(step=st.integers(0, 3), content=st.binary(max_size=50))
    def commit(self, step: int, content: bytes) -> None:
        """Save something."""
        manifest = self.store.commit(Manifest.draft(progress=Progress(step=step)), {"data.bin": [content]})
        assert manifest.id not in self.model
        self.model[manifest.id] = content

    @rule()
    def a_commit_that_fails(self) -> None:
        """Try to save what has no bytes."""
        with pytest.raises(TypeError):
            self.store.commit(Manifest.draft(progress=Progress()), {"data.bin": [None]})  # type: ignore[list-item]

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        """Delete one; a pinned one stays."""
        id = self.one_of_them(data)
        assert self.store.delete(id) == (id not in self.pinned)
        if id not in self.pinned:
            del self.model[id]

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def pin_or_unpin(self, data: st.DataObject) -> None:
        """Pin one, or take its pin away."""
        id = self.one_of_them(data)
        (self.store.unpin if id in self.pinned else self.store.pin)(id)
        self.pinned ^= {id}

    @rule()
    def reopen(self) -> None:
        """Start again, as another process would."""
        self.store = LocalStore(self.store.root, durability="none")
        with self.store.lock():
            self.store.open()

    @invariant()
    def holds_what_the_dict_holds_in_its_order(self) -> None:
        """Compare everything."""
        manifests = self.store.manifests()
        assert [manifest.id for manifest in manifests] == list(self.model)
        for id, content in self.model.items():
            assert (self.store.path(id) / "data.bin").read_bytes() == content
            assert self.store.verify(id) == []
        assert set(self.store.pins()) == self.pinned
        sequences = [manifest.sequence for manifest in manifests]
        assert sequences == sorted(set(sequences))


StoreAgainstDict.TestCase.settings = settings(max_examples=30, stateful_step_count=15, deadline=None)
test_the_store_agrees_with_a_dict = StoreAgainstDict.TestCase


def test_run_json_is_plain(store: LocalStore) -> None:
    """Format, run id and time, for any program."""
    store.open()
    assert set(json.loads((store.root / "run.json").read_text())) == {"format", "run_id", "created", "digest"}


def test_what_lost_its_manifest_is_never_deleted(
    store: LocalStore, draft: Draft, files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where it can't be set aside: it may be all there is."""
    with store.lock():
        store.open()
        id = store.commit(draft(), files(1)).id
        (store.path(id) / "manifest.json").unlink()
        (store.root / "damaged").write_text("in the way")
        assert store.clean() == []
    assert list(store.path(id).iterdir())
    assert f"{id} has lost its manifest.json, and stays where it is" in caplog.text


def test_a_sequence_that_no_run_gets_to_does_not_count(store: LocalStore, draft: Draft, files: Files) -> None:
    """Somebody put a snapshot here after whose number there is hardly any."""
    store.open()
    other = store.commit(draft(), files(1))
    path = store.path(other.id) / "manifest.json"
    path.write_bytes(replace(other, run="f" * 32, sequence=2**53 - 2).to_bytes())
    assert [store.commit(draft(), files(1)).sequence for _ in range(3)] == [2, 3, 4]
