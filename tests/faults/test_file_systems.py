"""File systems that do less than others: no links, late answers, names without case - and clocks that jump."""

from __future__ import annotations

import errno
import itertools
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ckpt_callbacks import Run, RunLockedError, SnapshotNotFoundError, StoreError, every, keep_tiers
from ckpt_callbacks.engine import Progress
from ckpt_callbacks.store import LocalStore, Manifest
from ckpt_callbacks.store import manifest as manifests
from ckpt_callbacks.store.files import disk
from tests.faults.harness import FrozenLoop, checkpointer, contract, failing, undisturbed

# Links ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.EXDEV, errno.ENOSYS])
@pytest.mark.parametrize("kind", ["link", "symlink"])
def test_without_links_every_snapshot_has_its_own_copy(tmp_path: Path, number: int, kind: str) -> None:
    """Nothing fails, nothing is shared, and `@best` and `@latest` are worked out all the same."""
    run = tmp_path / "run"
    with failing(run, number, lambda call: call.name == kind) as calls:
        FrozenLoop(checkpointer(run)).run(8)
        latest = Run(run).get("latest")
    assert any(call.name == kind for call in calls)
    assert latest.step == 8
    if kind == "link":
        assert {path.stat().st_nlink for path in run.rglob("*.safetensors")} == {1}
    else:
        assert not (run / "latest").is_symlink()
    contract(run, Run(run).pin(Run(run).snapshots()[0].id).id, 8)


# Answers that come late ----------------------------------------------------------------------------------------------


def test_a_name_may_be_listed_before_it_can_be_opened(tmp_path: Path) -> None:
    """A network's listing shows a snapshot whose files can't be opened yet: it is not there, and not damaged."""
    run = undisturbed(tmp_path / "run")
    latest = Run(run).latest.id  # type: ignore[union-attr]
    with failing(run, errno.ENOENT, lambda call: latest in call.path and "/" in call.path.partition(latest)[2]):
        seen = Run(run)
        assert latest not in {snapshot.id for snapshot in seen.snapshots()}
        assert seen.unreadable() == {}
    contract(run, next(iter(Run(run).pins())), 6)


def test_a_snapshot_may_be_committed_before_it_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The listing lags behind by a second or so: what was just saved is known to who saved it, so rules judge as they
    would, and numbers don't repeat."""
    run = undisturbed(tmp_path / "run")
    pinned = {snapshot.step for snapshot in Run(run).snapshots() if snapshot.id in Run(run).pins()}
    stale = disk.list(run / "snapshots")
    real = disk.list
    with monkeypatch.context() as patch:
        patch.setattr(disk, "list", lambda path: stale if Path(path) == run / "snapshots" else real(path))
        one = checkpointer(run, background=False)
        FrozenLoop(one).run(10)
    run_now = Run(run)
    steps = [snapshot.step for snapshot in run_now.snapshots()]
    assert steps == [*sorted(pinned), 8, 10]
    sequences = [snapshot.manifest.sequence for snapshot in run_now.snapshots()]
    assert len({*sequences}) == len(sequences)
    contract(run, next(iter(run_now.pins())), 10)


def test_a_resume_elsewhere_does_not_miss_the_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another machine's listing is older than the last snapshot, which can be opened: the link tells of it."""
    run = undisturbed(tmp_path / "run")
    stale = disk.list(run / "snapshots")
    FrozenLoop(checkpointer(run)).run(8)
    real = disk.list
    monkeypatch.setattr(disk, "list", lambda path: stale if Path(path) == run / "snapshots" else real(path))
    one = checkpointer(run, background=False)
    FrozenLoop(one).run(10)
    monkeypatch.undo()
    assert one.resumed is not None
    assert one.resumed.step == 8
    contract(run, next(iter(Run(run).pins())), 10)


def test_what_is_dropped_while_it_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that was listed is gone before it is read, and others came: a run that has snapshots never looks empty."""
    store = LocalStore(tmp_path / "run", durability="none")
    store.commit(Manifest.draft(progress=Progress(step=1)), {"model.bin": [b"1"]})
    real, step = disk.list, itertools.count(2)

    def overtaken(path: Path) -> list[os.DirEntry[str]]:
        found = real(path)
        if Path(path) == store.root / "snapshots" and (number := next(step)) < 5:
            writer = LocalStore(store.root, durability="none")
            with monkeypatch.context() as undone:
                undone.setattr(disk, "list", real)
                new = writer.commit(Manifest.draft(progress=Progress(step=number)), {"model.bin": [b"%d" % number]})
                for one in writer.manifests():
                    if one.id != new.id:
                        writer.delete(one.id)
        return found

    monkeypatch.setattr(disk, "list", overtaken)
    assert [snapshot.step for snapshot in Run(store.root).snapshots()] == [4]


def test_files_that_are_kept_open_elsewhere(tmp_path: Path) -> None:
    """NFS keeps a deleted file as `.nfs...` while somebody has it open: its directory can't go yet. It goes later."""
    run = undisturbed(tmp_path / "run")
    victim = Run(run).snapshots()[-1]
    (victim.path / ".nfs0001").write_bytes(b"open elsewhere")
    with failing(run, errno.EBUSY, lambda call: call.name == "unlink" and ".nfs" in call.path):
        FrozenLoop(checkpointer(run, background=False)).run(12)
        assert victim.id not in {snapshot.id for snapshot in Run(run).snapshots()}
    contract(run, next(iter(Run(run).pins())), 12)


# Names ---------------------------------------------------------------------------------------------------------------


def test_file_names_that_differ_in_case_only_are_refused(tmp_path: Path) -> None:
    """Before anything is written: where case doesn't count one would overwrite the other, or the manifest."""
    store = LocalStore(tmp_path / "run")
    draft = Manifest.draft(progress=Progress(step=1))
    for names in (["model.bin", "Model.bin"], ["Manifest.json"]):
        with pytest.raises(StoreError, match="upper and lower case"):
            store.commit(draft, {name: [b"x"] for name in names})
    assert not store.exists()


def test_an_id_in_another_case_is_no_other_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where case doesn't count, `RUN@000000006-7F3A1C` opens the files of `...-7f3a1c`. It is told what there is, not
    that something is damaged; and a pin of that name is one of the snapshot."""
    run = undisturbed(tmp_path / "run")
    id = next(one.id for one in Run(run).snapshots() if one.id.upper() != one.id)
    (run / "snapshots" / id.upper()).symlink_to(id)  # what a file system without case does by itself
    with pytest.raises(SnapshotNotFoundError, match=r"it has 2 snapshots|it has 3 snapshots"):
        Run(run).get(id.upper())


def test_two_names_of_one_directory_are_one_run(tmp_path: Path) -> None:
    """`runs/A` and `runs/a`, or a mount: the second one in the same process is refused, and told why."""
    run = undisturbed(tmp_path / "run")
    (tmp_path / "RUN").mkdir()
    os.link(run / ".lock", tmp_path / "RUN" / ".lock")  # the same file by another path
    with LocalStore(run).lock(), pytest.raises(RunLockedError, match="in use by this very process, under another name"):
        LocalStore(tmp_path / "RUN").lock()


# Clocks --------------------------------------------------------------------------------------------------------------


class Backwards(datetime):
    """A clock that goes back by an hour whenever it is looked at."""

    looks = 0

    @classmethod
    def now(cls, tz=None):
        cls.looks += 1
        return datetime(2026, 1, 2, tzinfo=UTC) - timedelta(hours=cls.looks)


def test_a_clock_that_runs_backwards_changes_no_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Order, `latest`, triggers and tiers go by numbers and training time; the calendar is for people."""
    monkeypatch.setattr(manifests, "datetime", Backwards)
    monkeypatch.setattr(time, "time", lambda: 1e9 - Backwards.looks)
    monkeypatch.setattr(time, "time_ns", lambda: 10**18 - Backwards.looks)
    training = itertools.count()
    monkeypatch.setattr(time, "monotonic", lambda: float(next(training)))
    run = tmp_path / "run"
    one = checkpointer(run, save=every("1m"), keep=keep_tiers({"2m": 3}), background=False)
    FrozenLoop(one).run(400)
    run_now = Run(run)
    snapshots = run_now.snapshots()
    assert [one.created for one in snapshots] == sorted((one.created for one in snapshots), reverse=True)
    assert [one.step for one in snapshots] == sorted(one.step for one in snapshots)
    assert run_now.latest == snapshots[-1]
    elapsed = [one.manifest.elapsed for one in snapshots]
    assert len(elapsed) == 3
    assert all(later - earlier >= 60 for earlier, later in itertools.pairwise(elapsed))
    for path in run.rglob("*"):
        os.utime(path, (2e9, 2e9) if "events" in path.name else (1, 1), follow_symlinks=False)
    again = checkpointer(run, save=every("1m"), keep=keep_tiers({"2m": 3}), background=False)
    FrozenLoop(again).run(420)
    assert again.resumed is not None
    assert again.resumed.step == snapshots[-1].step
