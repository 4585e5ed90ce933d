"""A run and its snapshots as a user sees them: no framework, no lock, errors that say what there is."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

import ckpt_callbacks
from ckpt_callbacks import Monitor, Run, Snapshot, keep_last
from ckpt_callbacks.engine.moment import Progress
from ckpt_callbacks.errors import ConfigurationError, CorruptSnapshotError, RunLockedError, SnapshotNotFoundError
from ckpt_callbacks.run import Repair, human_size, resolve_reference
from ckpt_callbacks.store import LocalStore, Manifest
from ckpt_callbacks.store.files import disk

MakeRun = Callable[..., Run]

VAL_LOSS = {"metric": "val_loss", "mode": "min", "min_delta": 0.0}


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Makes a run whose snapshots have these steps and values of val_loss."""

    def make(
        losses: dict[int, float] | None = None, name: str = "run", monitors: tuple[Any, ...] = (VAL_LOSS,), **known: Any
    ) -> Run:
        store = LocalStore(tmp_path / name)
        store.open()
        for step, loss in ({10: 0.5, 20: 0.25, 30: math.nan} if losses is None else losses).items():
            draft = Manifest.draft(
                progress=Progress(step=step, epoch=step // 10),
                metrics={"val_loss": loss, "acc": step / 100},
                reasons=("every_steps(10)",),
                monitors=monitors,
                **known,
            )
            weights = save({"layer.weight": np.full((2, 3), step, np.float32)}, {"aliases": '{"tied": "layer.weight"}'})
            store.commit(draft, {"model.safetensors": [weights], "state.json": [b'{"weights": {}}']})
        return Run(tmp_path / name)

    return make


def test_snapshots_come_oldest_first(make_run: MakeRun) -> None:
    """With everything that a user asks of them."""
    run = make_run(note="by hand")
    first, second, third = run.snapshots()
    assert [snapshot.step for snapshot in (first, second, third)] == [10, 20, 30]
    assert first.path == run.path / "snapshots" / first.id
    assert first.run_path == run.path
    assert first.epoch == first.progress.epoch == 1
    assert first.metrics == {"val_loss": 0.5, "acc": 0.1}
    assert first.reasons == ("every_steps(10)",)
    assert first.note == "by hand"
    assert first.content == "full"
    assert not first.pinned
    assert first.size == sum(path.stat().st_size for path in first.path.iterdir() if path.name != "manifest.json")
    assert timedelta(0) <= datetime.now(UTC) - first.created < timedelta(minutes=1)
    assert run.latest == third
    assert repr(first).startswith(f"<Snapshot {first.id}: step 10, epoch 1, val_loss=0.5")
    assert "3 snapshots: steps 10, 20, 30" in repr(run)


def test_best_is_by_the_runs_own_monitor_or_any_other(make_run: MakeRun) -> None:
    """NaN is never best; a name that was monitored has its recorded mode; another one is judged by its name."""
    run = make_run()
    assert run.best().step == 20  # type: ignore[union-attr]
    assert run.best("val_loss").step == 20  # type: ignore[union-attr]
    assert run.best("acc").step == 30  # type: ignore[union-attr]
    assert run.best(Monitor("val_loss", "max")).step == 10  # type: ignore[union-attr]
    assert run.best("precision") is None
    with pytest.raises(ConfigurationError):
        run.best("foo")


def test_without_a_monitor_there_is_no_best(make_run: MakeRun) -> None:
    """And a reference to it says why."""
    run = make_run(monitors=())
    assert run.best() is None
    assert run.best("val_loss").step == 20  # type: ignore[union-attr]
    with pytest.raises(SnapshotNotFoundError, match="no best snapshot, because no monitor was given"):
        run.get("best")
    with pytest.raises(SnapshotNotFoundError, match="because none has a finite 'val_loss'"):
        make_run({10: math.inf}, name="diverged").get("best")


def test_an_empty_run_has_nothing(make_run: MakeRun) -> None:
    """No snapshot is no error until one is asked for."""
    run = make_run({})
    assert (run.snapshots(), run.latest, run.best(), run.monitors) == ([], None, None, ())
    assert run.verify().ok
    with pytest.raises(SnapshotNotFoundError, match="has no latest snapshot: it has no snapshots"):
        run.get("latest")


def test_get_by_every_kind_of_reference(make_run: MakeRun) -> None:
    """By name, step (also a numpy integer) and id, with and without @."""
    run = make_run()
    first = run.snapshots()[0]
    for ref in (10, "10", "@10", "000010", np.int64(10), first.id, f"@{first.id}"):
        assert run.get(ref) == first
    assert run.get("@best").step == 20
    assert run.get("latest").step == 30


def test_a_step_that_was_saved_twice_is_the_newest(make_run: MakeRun) -> None:
    """A replayed step was saved again after a crash."""
    first = make_run({10: 0.5}).latest
    second = make_run({10: 0.5}).latest
    assert first != second
    assert Run(second.run_path).get(10) == second  # type: ignore[union-attr]


def test_what_is_not_there_is_answered_with_what_is(make_run: MakeRun) -> None:
    """Steps are listed, many of them in short."""
    run = make_run()
    with pytest.raises(SnapshotNotFoundError, match="no snapshot of step 15: it has 3 snapshots: steps 10, 20, 30"):
        run.get(15)
    with pytest.raises(SnapshotNotFoundError, match="no snapshot 'besst': it has 3 snapshots"):
        run.get("besst")
    with pytest.raises(SnapshotNotFoundError, match=r"not the id of a snapshot|no snapshot"):
        run.get("../../etc")
    many = make_run(dict.fromkeys(range(1, 13), 0.1), name="many")
    with pytest.raises(SnapshotNotFoundError, match=r"12 snapshots: steps 1, 2, 3, \.\.\., 10, 11, 12\."):
        many.get(99)
    with pytest.raises(TypeError):
        run.get(1.5)  # type: ignore[arg-type]


def test_a_directory_that_is_no_run_is_answered_with_the_runs_near_it(make_run: MakeRun, tmp_path: Path) -> None:
    """A typo, the folder above, a file: each has its own answer."""
    make_run({}, name="runs/digits")
    with pytest.raises(SnapshotNotFoundError, match="does not exist; beside it are digits"):
        Run(tmp_path / "runs" / "digit")
    with pytest.raises(SnapshotNotFoundError, match="it holds the runs digits: name one of them"):
        Run(tmp_path / "runs")
    with pytest.raises(SnapshotNotFoundError, match="it is a file"):
        Run(tmp_path / "runs" / "digits" / "run.json")
    with pytest.raises(SnapshotNotFoundError, match="it has no snapshots"):
        Run(tmp_path / "runs" / "digits" / "snapshots")
    assert list(tmp_path.iterdir()) == [tmp_path / "runs"]


def test_references_from_anywhere(make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bare directory, all that may follow the @, a snapshot's path, and the links - which need not exist."""
    run = make_run()
    first, best, latest = run.snapshots()
    monkeypatch.chdir(tmp_path)
    assert resolve_reference("run") == resolve_reference(Path("run")) == resolve_reference("run@latest") == latest
    assert resolve_reference("run@best") == resolve_reference("run/best") == best
    assert resolve_reference("run@10") == resolve_reference(f"run@{first.id}") == resolve_reference("run/@10") == first
    assert resolve_reference(f"run/snapshots/{first.id}") == resolve_reference(first.path) == first
    (tmp_path / "chosen").symlink_to(first.path)
    assert resolve_reference("chosen") == first
    assert resolve_reference("run/latest") == latest


def test_a_path_may_hold_an_at_sign(make_run: MakeRun, tmp_path: Path) -> None:
    """The last @ splits, unless the whole is a directory."""
    run = make_run(name="me@home/run@2")
    assert resolve_reference(tmp_path / "me@home" / "run@2") == run.latest
    assert resolve_reference(f"{run.path}@10").step == 10
    with pytest.raises(SnapshotNotFoundError, match="no snapshot of step 3"):
        resolve_reference(f"{run.path}@3")


@pytest.mark.parametrize("reference", ["nowhere", "nowhere@best", "@best", "run@"])
def test_a_reference_to_nothing_is_an_error(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: str
) -> None:
    """Always of the same kind."""
    make_run()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SnapshotNotFoundError):
        resolve_reference(reference)


def test_a_reference_to_a_damaged_snapshot_fails_loudly(make_run: MakeRun) -> None:
    """Whoever names a snapshot gets that one or an error, not its neighbour."""
    run = make_run()
    latest = run.snapshots()[-1]
    (latest.path / "manifest.json").write_text("{")
    for reference in (f"{run.path}@{latest.id}", latest.path):
        with pytest.raises(CorruptSnapshotError, match="not readable JSON"):
            resolve_reference(reference)
    with pytest.raises(SnapshotNotFoundError, match="2 snapshots: steps 10, 20, and 1 with an unreadable manifest"):
        run.get(30)


def test_weights_are_mapped_read_only_and_aliases_resolved(make_run: MakeRun) -> None:
    """Names as the framework has them; a tied weight is the same memory."""
    weights = make_run().get(20).weights()
    assert set(weights) == {"layer.weight", "tied"}
    np.testing.assert_array_equal(weights["layer.weight"], np.full((2, 3), 20, np.float32))
    assert not weights["layer.weight"].flags.writeable
    assert np.shares_memory(weights["tied"], weights["layer.weight"])


def test_weights_in_several_files_are_one(make_run: MakeRun, tmp_path: Path) -> None:
    """Shards are joined by name."""
    shards = {f"model-0000{n}-of-00002.safetensors": [save({f"w{n}": np.array([n])})] for n in (1, 2)}
    LocalStore(tmp_path / "run").commit(Manifest.draft(progress=Progress()), shards)
    assert {name: int(array[0]) for name, array in Run(tmp_path / "run").latest.weights().items()} == {"w1": 1, "w2": 2}  # type: ignore[union-attr]


@pytest.mark.parametrize("aliases", ["[]", "{", '{"tied": "missing"}', "[" * 200_000], ids=range(4))
def test_broken_aliases_are_named(tmp_path: Path, aliases: str) -> None:
    """An alias must lead to a tensor."""
    file = save({"w": np.zeros(1)}, {"aliases": aliases})
    LocalStore(tmp_path / "run").commit(Manifest.draft(progress=Progress()), {"model.safetensors": [file]})
    with pytest.raises(CorruptSnapshotError, match="alias"):
        Run(tmp_path / "run").get("latest").weights()


def test_verify_reports_every_snapshot(make_run: MakeRun) -> None:
    """True when all is good; else each problem with the snapshot and the file."""
    run = make_run()
    first, second, third = run.snapshots()
    report = run.verify()
    assert report
    assert report.checked == (first.id, second.id, third.id)
    assert "3 snapshots checked, every byte: all good" in str(report)
    os.truncate(first.path / "model.safetensors", 5)
    (second.path / "manifest.json").write_text("{}")
    (third.path / "manifest.json").unlink()
    report = run.verify()
    assert not report
    assert {problem.snapshot: problem.text.split(" ")[0].rstrip(":") for problem in report.problems} == {
        first.id: "model.safetensors",
        second.id: "manifest.json",
        third.id: "manifest.json",
    }
    assert not first.verify().ok
    with pytest.raises(CorruptSnapshotError, match=r"model\.safetensors has another size"):
        first.verify().require_ok()


def test_a_live_runs_deletion_is_no_damage(make_run: MakeRun) -> None:
    """While somebody trains, a directory without manifest is one that is just going away."""
    run = make_run()
    (run.snapshots()[0].path / "manifest.json").unlink()
    assert not run.verify()
    with LocalStore(run.path).lock():
        assert run.verify()


def test_a_copied_snapshot_can_be_used_alone(make_run: MakeRun, tmp_path: Path) -> None:
    """`cp -r` of one directory is a good copy, under any name."""
    copy = shutil.copytree(make_run().get(20).path, tmp_path / "paper")
    snapshot = resolve_reference(copy)
    assert isinstance(snapshot, Snapshot)
    assert snapshot.step == 20
    assert snapshot.verify().ok
    assert snapshot.weights()["tied"][0, 0] == 20


def test_pins_are_kept_with_their_note(make_run: MakeRun) -> None:
    """Through any reference; pinning needs no lock."""
    run = make_run()
    first = run.pin(10, note="for the paper")
    assert first.pinned
    assert run.pins() == {first.id: "for the paper"}
    assert not run.unpin("@10").pinned
    assert [event["event"] for event in LocalStore(run.path).journal] == ["pinned", "unpinned"]


def test_pruning_says_first_and_deletes_only_when_told(make_run: MakeRun) -> None:
    """The verdict is the same; the newest and the pinned stay whatever the rules say."""
    run = make_run({step: 1 / step for step in (10, 20, 30, 40)})
    run.pin(10)
    ids = [snapshot.id for snapshot in run.snapshots()]
    planned = run.prune(keep_last(1))
    assert set(planned.drop) == {ids[1], ids[2]}
    assert len(run.snapshots()) == 4
    done = run.prune(keep_last(1), dry_run=False)
    assert done.keep.keys() == planned.keep.keys()
    assert [snapshot.id for snapshot in run.snapshots()] == [ids[0], ids[3]]
    assert [event["id"] for event in LocalStore(run.path).journal if event["event"] == "dropped"] == ids[1:3]


def test_pruning_by_default_keeps_the_latest_two_and_the_best(make_run: MakeRun) -> None:
    """As a checkpointer does."""
    run = make_run({10: 0.1, 20: 0.3, 30: 0.2, 40: 0.4})
    run.prune(dry_run=False)
    assert [snapshot.step for snapshot in run.snapshots()] == [10, 30, 40]


def test_a_run_that_trains_is_not_pruned(make_run: MakeRun) -> None:
    """Deleting under a live run is its own checkpointer's business."""
    run = make_run()
    hold = "import sys; from ckpt_callbacks.store import RunLock; RunLock(sys.argv[1]).acquire(); input(print('held'))"
    process = subprocess.Popen([sys.executable, "-uc", hold, str(run.path)], stdin=-1, stdout=-1, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    try:
        with pytest.raises(RunLockedError, match=f"process {process.pid}"):
            run.prune(keep_last(1), dry_run=False)
        assert len(run.snapshots()) == 3
    finally:
        process.communicate("\n")


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (123_456, "123 kB"), (1_234_567, "1.23 MB")]
)
def test_sizes_for_people(size: int, text: str) -> None:
    """Three digits that count, powers of 1000."""
    assert human_size(size) == text


def test_reading_a_run_loads_no_framework(make_run: MakeRun) -> None:
    """Not even to read weights."""
    code = (
        "import sys, json, ckpt_callbacks; ckpt_callbacks.Run(sys.argv[1]).latest.weights();"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    run = make_run()
    done = subprocess.run([sys.executable, "-c", code, str(run.path)], check=True, capture_output=True, text=True)
    assert not {"torch", "keras", "tensorflow", "jax", "pytorch_lightning", "lightning"} & set(json.loads(done.stdout))
    assert ckpt_callbacks.Run is Run


def test_repair_sets_aside_and_brings_back(make_run: MakeRun) -> None:
    """What is damaged goes out of the way, whole; put back from a copy, it is a snapshot again. Links are renewed."""
    run = make_run()
    first, bad, last = run.snapshots()
    good = (bad.path / "state.json").read_bytes()
    (bad.path / "state.json").write_bytes(b"[]")
    (last.path / "manifest.json").unlink()
    (run.path / "snapshots" / ".000000009-aaaaaa.partial").mkdir()
    done = run.repair()
    assert done.removed == (".000000009-aaaaaa.partial",)
    assert dict(done.aside) == {bad.id: run.path / "damaged" / bad.id}
    assert {path.name for path in run.aside()} == {bad.id, last.id}
    assert [snapshot.id for snapshot in run.snapshots()] == [first.id]
    assert (run.path / "latest").resolve() == (run.path / "best").resolve() == first.path
    assert run.verify()
    (run.path / "damaged" / bad.id / "state.json").write_bytes(good)
    assert run.repair().back == (bad.id,)
    assert [snapshot.id for snapshot in run.snapshots()] == [first.id, bad.id]
    assert run.repair() == Repair((), {}, ())


def test_a_copy_that_follows_links_is_mended(make_run: MakeRun, tmp_path: Path) -> None:
    """What was `latest` is a directory then: it is named, and set aside by a repair as by the next save."""
    run = make_run()
    run.repair()
    shutil.copytree(run.path, tmp_path / "copy")
    copy = Run(tmp_path / "copy")
    report = copy.verify()
    assert report.ok
    assert "latest is no link, a directory lies in its place" in str(report)
    assert copy.repair().linked == {"latest": run.latest.id, "best": run.best().id}
    assert {path.name for path in (copy.path / "damaged").iterdir()} == {"latest", "best"}
    assert (copy.path / "latest").resolve() == copy.latest.path
    assert copy.verify().notes == ()
    assert [one.id for one in copy.snapshots()] == [one.id for one in run.snapshots()]
    assert copy.repair() == Repair((), {}, ())


def test_a_missing_run_json_is_told_and_is_no_damage(make_run: MakeRun) -> None:
    """It can be written anew, from what the snapshots say."""
    run = make_run()
    id = run.id
    (run.path / "run.json").unlink()
    report = run.verify()
    assert report.ok
    assert "run.json is missing" in str(report)
    assert run.repair().renewed
    assert run.id == id
    assert not run.repair().renewed


def test_what_can_not_be_read_is_left_and_told(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """A repair does not move it, for it may be good, and does not pass over it in silence either."""
    run = make_run()
    newest, read = run.latest.path / "manifest.json", disk.read

    def refuse(path: str | Path, *limit: int) -> bytes:
        if Path(path) == newest:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return read(path, *limit)

    with monkeypatch.context() as patch:
        patch.setattr(disk, "read", refuse)
        os.utime(newest)  # somebody has looked at it, and it is to be read again
        done = run.repair()
    assert dict(done.aside) == {}
    assert [(problem.snapshot, problem.damage) for problem in done.left] == [(newest.parent.name, False)]
    assert run.verify()


def test_repair_leaves_what_a_later_version_wrote(make_run: MakeRun) -> None:
    """It is unreadable here, not damaged."""
    run = make_run()
    path = run.latest.path / "manifest.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    done = run.repair()
    assert dict(done.aside) == {}
    assert "format 2" in str(done.left[0])
    assert path.exists()


def test_the_runs_own_rules_are_read_back(make_run: MakeRun) -> None:
    """From the newest manifest; one that is a function of the user's is named."""
    run = make_run(policy={"save": "every_steps(10)", "keep": ["keep_last(1)", "weights_after(1)"]})
    assert list(run.verdict().drop) == [snapshot.id for snapshot in run.snapshots()[:2]]
    assert run.verdict(keep_last(9)).drop == {}
    other = make_run(name="other", policy={"save": "when(f)", "keep": ["keep_when(f)"]})
    verdict = other.verdict()
    assert (list(verdict.keep), verdict.drop, verdict.demote) == ([one.id for one in other.snapshots()], {}, {})
    with pytest.raises(ConfigurationError, match=r"keep_when\(f\).*can't be read back.*Say which rules shall hold"):
        other.prune(dry_run=False)
