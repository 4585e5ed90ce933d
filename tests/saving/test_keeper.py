"""What happens to a run beside the commit: what is told, reduced, made room for, and kept apart."""

from __future__ import annotations

import json
import logging
import math
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ckpt_callbacks import (
    ConfigurationError,
    Monitor,
    Run,
    Snapshot,
    StoreError,
    every_epochs,
    every_steps,
    keep_all,
    keep_best,
    keep_last,
    keep_within,
    on_best,
    on_end,
    weights_after,
    when,
)
from ckpt_callbacks.checkpointer import BaseCheckpointer
from ckpt_callbacks.engine import Event, Progress, docket, judge
from ckpt_callbacks.store.files import disk
from tests.loop import Loop, checkpointer


def events(tmp_path: Path, kind: str) -> list[dict[str, Any]]:
    """The journal's entries of one kind."""
    lines = (tmp_path / "run" / "events.jsonl").read_text().splitlines()
    return [entry for entry in map(json.loads, lines) if entry["event"] == kind]


def steps(tmp_path: Path) -> list[int]:
    return [snapshot.step for snapshot in Run(tmp_path / "run").snapshots()]


# Explained ----------------------------------------------------------------------------------------------------------


def test_why_a_snapshot_is_kept_stands_in_the_journal(tmp_path):
    """Whenever the reasons change; so every snapshot's story can be read."""
    Loop(checkpointer(tmp_path)).run(14)
    best = Run(tmp_path / "run").best()
    told = [entry["why"] for entry in events(tmp_path, "kept") if entry["id"] == best.id]
    assert told[0] == ["newest full: needed to resume", "keep_last(2)", "best loss (rank 1 of 1)"]
    assert told[-1] == ["best loss (rank 1 of 1)"]


def test_the_policy_travels_with_the_snapshot(tmp_path):
    """So that a command line can apply and explain the run's own rules."""
    Loop(checkpointer(tmp_path, keep=[keep_last(1), keep_best(2)])).run(8)
    run = Run(tmp_path / "run")
    assert run.policy == {
        "save": "(every_steps(2) | on_best('loss'))",
        "keep": ["keep_last(1)", "keep_best(2, 'loss')"],
    }
    assert repr(run.rules) == "(keep_last(1), keep_best(2, 'loss'))"
    assert not run.prune().drop
    assert len(run.prune(keep_last(1)).drop) == 1


# Reduced, within a budget -------------------------------------------------------------------------------------------


def test_older_snapshots_keep_their_weights(tmp_path):
    """They are there, readable and verified, but can't be resumed from."""
    Loop(checkpointer(tmp_path, keep=[keep_all(), weights_after(2)])).run(8)
    run = Run(tmp_path / "run")
    assert [(one.step, one.content) for one in run.snapshots()] == [
        *((2, "weights"), (4, "weights"), (6, "full"), (8, "full"))
    ]
    assert [float(one.weights()["w"][0]) for one in run.snapshots()] == [2, 4, 6, 8]
    assert run.verify()
    assert [entry["why"] for entry in events(tmp_path, "demoted")] == ["weights_after(2)"] * 2
    again = checkpointer(tmp_path)
    assert again.read(run.snapshots()[0].path).rest is None
    assert Loop(again).run(10).weights[0] == 10


def test_a_budget_that_others_exceed_is_told_once(tmp_path, caplog):
    """Nothing is deleted that another rule keeps."""
    Loop(checkpointer(tmp_path, keep=[keep_last(3), keep_within(100)])).run(10)
    assert steps(tmp_path) == [6, 8, 10]
    assert caplog.text.count("keep_within(100) can't be held") == 1


# Room ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def disk_of(tmp_path, monkeypatch):
    """Gives the disk a size: what is not in the run's snapshots is free; a write beyond that fails."""

    def make(size: int) -> None:
        def free(path):
            return size - sum(file.stat().st_size for file in tmp_path.rglob("*safetensors"))

        create, write = disk.create, disk.write
        large: set[int] = set()

        def creating(path):
            descriptor = create(path)
            (large.add if "safetensors" in str(path) else large.discard)(descriptor)
            return descriptor

        def writing(descriptor, data):
            if descriptor in large and free(None) < len(data):
                raise OSError(28, "No space left on device")
            return write(descriptor, data)

        monkeypatch.setattr(disk, "free", free)
        monkeypatch.setattr(disk, "create", creating)
        monkeypatch.setattr(disk, "write", writing)

    return make


class Large(Loop):
    """Snapshots of some 80 kB."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.weights = self.weights.repeat(2500)


def test_a_full_disk_gets_room_by_the_rules_first(tmp_path, disk_of, caplog):
    """What would be deleted after the next snapshot is deleted before it, if it would not fit beside that."""
    disk_of(190_000)
    Large(checkpointer(tmp_path, keep=keep_last(2))).run(8)
    assert steps(tmp_path) == [6, 8]
    assert "too full to wait" in events(tmp_path, "dropped")[0]["why"]


def test_a_full_disk_gets_room_by_reducing_too(tmp_path, disk_of, caplog):
    """What keeps its weights only after the next snapshot keeps them only before it, if that would not fit beside it;
    never the newest that can be resumed from. That the disk is too small is told when not even this helps any more."""
    disk_of(600_000)  # 80 kB of weights each, and as much again for what a resume needs
    Large(checkpointer(tmp_path, keep=[keep_all(), weights_after(2)]), np.zeros(10_000)).run(10)
    run = Run(tmp_path / "run")
    assert [(one.step, one.content) for one in run.snapshots()] == [
        *((2, "weights"), (4, "weights"), (6, "weights"), (8, "full"), (10, "full"))
    ]
    assert run.verify()
    assert [entry["why"] for entry in events(tmp_path, "demoted")] == [
        *["weights_after(2)"] * 2,
        "weights_after(2), and the disk is too full to wait",
    ]
    assert caplog.text.count("has 120 kB left, what the rules let go of counted") == 1  # 40 kB are free


def test_a_disk_that_will_not_hold_the_next_snapshot_is_told_of(tmp_path, disk_of, caplog):
    """When training starts, or as soon as it is so; what there is stays."""
    disk_of(190_000)
    with pytest.raises(StoreError, match="No space left on device"):
        Large(checkpointer(tmp_path, keep=keep_all())).run(8)
    assert steps(tmp_path) == [2, 4]
    assert caplog.text.count("the next snapshot will probably not fit") == 1
    caplog.clear()
    disk_of(60_000)
    with pytest.raises(StoreError):
        Large(checkpointer(tmp_path / "other")).run(2)
    assert "the next snapshot will probably not fit: it takes about 80" in caplog.text


# Health -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["weights", "loss", "metric"])
def test_a_run_that_diverges_keeps_its_healthy_snapshots(tmp_path, caplog, how):
    """From step 5 on something is NaN: nothing saved after that counts, and the user is told at the first."""
    loop = Loop(checkpointer(tmp_path, keep=keep_last(1)))
    if how == "weights":
        loop.metrics = lambda step: setattr(loop, "growth", math.nan) or {"loss": 1.0}
    elif how == "loss":
        loop.loss = lambda step: math.inf if step >= 5 else 1.0
    else:
        loop.checkpointer = checkpointer(tmp_path, keep=keep_last(1), save=every_steps(4))
        loop.metrics = lambda step: {"loss": math.nan if step >= 5 else 1.0}
    loop.run(12)
    run = Run(tmp_path / "run")
    assert [one.step for one in run.snapshots()] == ([4, 8, 12] if how == "metric" else [4, 6, 12])
    assert [one.manifest.unhealthy is None for one in run.snapshots()] == [True, False, False]
    assert run.best().step == 4
    assert caplog.text.count("is not healthy") == 1


def test_weights_that_stand_still_while_steps_go_on_are_told(tmp_path, caplog):
    """An optimizer without the model's parameters costs a night."""
    loop = Loop(checkpointer(tmp_path))
    loop.growth = 0
    loop.run(8)
    assert caplog.text.count("no weight has changed") == 1
    assert len(events(tmp_path, "stale")) >= 1
    caplog.clear()
    Loop(checkpointer(tmp_path / "other")).run(8)
    assert "no weight has changed" not in caplog.text


# Lines --------------------------------------------------------------------------------------------------------------


def test_going_back_begins_a_line_of_its_own(tmp_path):
    """`resume="run@4"`: what came after step 4 is neither the best nor pushed out, and the next resume goes on here."""
    Loop(checkpointer(tmp_path, keep=keep_last(2))).run(8)
    pinned = Run(tmp_path / "run").pin(6)
    back = Loop(checkpointer(tmp_path, keep=[keep_last(1), keep_best()], resume=f"{tmp_path}/run@{pinned.step}"))
    back.metrics = lambda step: {"loss": 5.0}
    back.growth = 100
    back.run(10)
    run = Run(tmp_path / "run")
    assert [(one.step, float(one.weights()["w"][0])) for one in run.snapshots()] == [
        (6, 6),
        (8, 8),
        (8, 206),
        (10, 406),
    ]
    assert run.best().metrics == {"loss": 5.0}
    again = checkpointer(tmp_path)
    assert Loop(again).run(12).weights[0] == 408
    assert again.resumed.step == 10


def test_the_same_command_carries_on_the_line_that_it_began(tmp_path):
    """Who goes back and is preempted goes on from there: a retry must not begin again and again."""
    Loop(checkpointer(tmp_path, keep=keep_all())).run(6)
    reference = f"{tmp_path}/run@2"
    for steps in (8, 12):
        back = checkpointer(tmp_path, keep=keep_all(), resume=reference)
        Loop(back).run(steps)
    assert back.resumed.step == 8
    run = Run(tmp_path / "run")
    assert [one.step for one in run.snapshots()] == [2, 4, 6, 4, 6, 8, 10, 12]
    other = checkpointer(tmp_path, keep=keep_all(), resume=f"{tmp_path}/run@4")
    Loop(other).run(5)
    assert other.resumed.step == 4


def test_a_fork_tells_where_it_comes_from(tmp_path):
    """The parent is the snapshot that was named; the journal has its run."""
    Loop(checkpointer(tmp_path)).run(8)
    origin = Run(tmp_path / "run").best()
    Loop(checkpointer(tmp_path / "fork", resume=f"{tmp_path}/run@best")).run(12)
    fork = Run(tmp_path / "fork" / "run")
    assert fork.snapshots()[0].manifest.parent == origin.id
    assert events(tmp_path / "fork", "resumed")[0]["forked_from"] == str(tmp_path / "run")
    assert fork.best().step == 12


# Cost ---------------------------------------------------------------------------------------------------------------


def test_a_save_costs_as_much_after_many_as_after_few(tmp_path, monkeypatch):
    """Not one question more is asked of the disk, and nothing more is judged, when everything is kept."""
    asked, judged = Counter(), []

    def counted(name, ask):
        return lambda *args: asked.update([name]) or ask(*args)

    for name in ("stat", "read", "list", "names", "lexists", "readlink"):
        monkeypatch.setattr(disk, name, counted(name, getattr(disk, name)))
    monkeypatch.setattr(docket, "judge", lambda records, rules: judged.append(len(records)) or judge(records, rules))
    at = {}
    loop = Loop(checkpointer(tmp_path, save=every_steps(1), keep=keep_all(), background=False))

    def loss(step: int) -> float:
        at[step] = asked.copy()
        return 1.0

    loop.loss = loss
    loop.run(63)
    assert at[62] - at[61] == at[12] - at[11]
    assert set(judged[3:]) == {2}


def test_what_somebody_removes_or_pins_meanwhile_counts(tmp_path):
    """The next best takes the place of one that was deleted by hand; a pin holds from the moment it is there."""
    loop = Loop(checkpointer(tmp_path, save=every_steps(4), keep=[keep_last(2), keep_best(1)], background=False))
    loop.metrics = lambda step: {"loss": step}

    def loss(step: int) -> float:
        run = Run(tmp_path / "run")
        if step == 10:
            shutil.rmtree(run.get(4).path)
        if step == 18:
            (run.path / "pins" / run.get(12).id).touch()
        return 1.0

    loop.loss = loss
    loop.run(28)
    assert steps(tmp_path) == [8, 12, 24, 28]
    assert (tmp_path / "run" / "best").resolve() == Run(tmp_path / "run").get(8).path


# Whose they are ------------------------------------------------------------------------------------------------------


def copied_in(tmp_path: Path) -> Snapshot:
    """Step 16 of another run, the best of all, in `run` beside its own steps 8, 12 and 14."""
    Loop(checkpointer(tmp_path)).run(14)
    other = Loop(checkpointer(tmp_path / "other"))
    other.metrics = lambda step: {"loss": -1}
    guest = other.run(16).checkpointer.latest
    shutil.copytree(guest.path, tmp_path / "run" / "snapshots" / guest.id)
    return Run(tmp_path / "run").get(guest.id)


def test_a_snapshot_of_another_run_is_left_alone(tmp_path):
    """It is listed, with the reason; it is neither the best nor the newest, and no rule deletes it or counts it."""
    guest, run = copied_in(tmp_path), Run(tmp_path / "run")
    assert (run.best().step, run.latest.step) == (8, 14)
    assert run.kept_by()[guest.id] == ("taken by another run: left alone",)
    assert run.get(16) == guest
    again = Loop(checkpointer(tmp_path)).run(20)
    assert again.checkpointer.resumed.step == 14
    assert sorted(steps(tmp_path)) == [8, 16, 18, 20]
    assert run.get(8).path == (tmp_path / "run" / "best").resolve()
    assert run.get(20).path == (tmp_path / "run" / "latest").resolve()
    assert not run.prune(keep_last(1), dry_run=False).keep.keys() - {guest.id, run.latest.id}
    assert sorted(steps(tmp_path)) == [16, 20]


def test_a_snapshot_of_another_run_is_carried_on_from_if_it_is_named(tmp_path):
    """That is a fork: what this run had is left behind, and the same command carries the new line on."""
    guest = copied_in(tmp_path)
    for resumed_at, ends_at in ((16, 17), (17, 18)):
        again = checkpointer(tmp_path, resume=str(guest.path), save=on_end())
        assert Loop(again).run(ends_at).checkpointer.resumed.step == resumed_at
    assert events(tmp_path, "resumed")[0]["forked_from"] == str(tmp_path / "run")
    assert Run(tmp_path / "run").latest.manifest.abandoned == ((1, guest.manifest.sequence),)


def test_a_run_that_holds_only_those_of_others_starts_fresh(tmp_path, caplog):
    """Carrying on from them must be said."""
    guest = copied_in(tmp_path)
    (tmp_path / "new" / "snapshots").mkdir(parents=True)
    older = {"format": 1, "run_id": "0" * 32, "created": "2026-01-01T00:00:00+00:00"}
    (tmp_path / "new" / "run.json").write_text(json.dumps(older) + "\n")
    shutil.copytree(guest.path, tmp_path / "new" / "snapshots" / guest.id)
    assert Loop(BaseCheckpointer(tmp_path / "new", save=on_end())).run(2).checkpointer.resumed is None
    assert "carried on from if resume= names one" in caplog.text


@pytest.mark.parametrize("with_its_id", [True, False])
def test_a_run_that_was_copied_as_a_whole_is_still_itself(tmp_path, with_its_id):
    """Also if only its snapshots were copied: then it is the run of the newest."""
    Loop(checkpointer(tmp_path / "a")).run(14)
    shutil.copytree(tmp_path / "a" / "run", tmp_path / "run")
    if not with_its_id:
        (tmp_path / "run" / "run.json").unlink()
        assert Run(tmp_path / "run").id == Run(tmp_path / "a" / "run").id
    Loop(checkpointer(tmp_path)).run(18)
    run = Run(tmp_path / "run")
    assert run.id == Run(tmp_path / "a" / "run").id
    assert steps(tmp_path) == [8, 16, 18]
    assert run.best().step == 8


# Watched ------------------------------------------------------------------------------------------------------------


def test_a_metric_that_never_appears(tmp_path, caplog):
    """A warning that names what was meant; if nothing else saves, an error."""
    one = checkpointer(tmp_path, monitor=Monitor("los", "min"), save=every_steps(4))
    begin = one.begin
    one.begin = lambda *args: (begin(*args), one.watch(True))[0]
    Loop(one).run(8)
    assert "'los' was not measured; measured was: 'loss'. Did you mean 'loss'?" in caplog.text


@pytest.mark.parametrize(
    "save",
    [every_epochs(1) & on_best("los_s"), on_best(Monitor("los_s", "min")), when(lambda m: m.metrics["los_s"] < 1)],
    ids=["and", "best", "when"],
)
def test_what_hangs_on_it_alone_is_an_error(tmp_path, save):
    """At the end of the first epoch."""
    one = checkpointer(tmp_path, monitor=Monitor("los_s", "min"), save=save)
    one.begin({})
    one.watch(True)
    ended = Event.EPOCH_END | Event.VALIDATION_END
    with pytest.raises(ConfigurationError, match="no snapshot would ever be taken"):
        one.boundary(Progress(4, 1, 0, 4), ended, {"loss": 1.0}, Loop(one).capture)
    one.end()


# Asked --------------------------------------------------------------------------------------------------------------


def test_another_process_asks(tmp_path, caplog):
    """Its note is the snapshot's; a request to stop is known to the adapter once the snapshot is on its way."""
    caplog.set_level(logging.INFO)
    one = checkpointer(tmp_path, save=every_steps(100), background=False)
    loop, asked = Loop(one), []

    def loss(step: int) -> float:
        if step == 2:
            asked.append(Run(tmp_path / "run").request("by hand", stop=True, wants_answer=True))
        if step == 3:
            deadline = time.monotonic() + 20
            while not one._requests and time.monotonic() < deadline:
                time.sleep(0.05)
        return 1.0

    loop.loss = loss
    loop.run(4)
    run = Run(tmp_path / "run")
    assert [(one.step, one.note, one.reasons) for one in run.snapshots()] == [(3, "by hand", ("manual: by hand",))]
    assert run.outcome(asked[0]) == {"id": run.latest.id}
    assert one.stops
