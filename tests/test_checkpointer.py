"""The checkpointer without any framework: a loop of numpy as its adapter. Effects in order, failures, resume."""

from __future__ import annotations

import errno
import gc
import json
import math
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ckpt_callbacks import (
    ConfigurationError,
    CorruptSnapshotError,
    ResumeError,
    Run,
    StoreError,
    UnreachableError,
    UnstorableError,
    every_steps,
    keep_all,
    keep_best,
    keep_last,
    keep_when,
    on_best,
    on_end,
    on_exception,
    resume,
    when,
)
from ckpt_callbacks.checkpointer import BaseCheckpointer
from ckpt_callbacks.engine import Event, Progress
from ckpt_callbacks.run import resolve_reference
from ckpt_callbacks.saving import Saver, reserve
from ckpt_callbacks.saving.overlap import Overlap
from ckpt_callbacks.state.captured import Captured
from ckpt_callbacks.state.memory import copying
from ckpt_callbacks.state.memory.arena import Arena
from ckpt_callbacks.state.memory.copying import Copier, Copying, Lent
from ckpt_callbacks.state.tensors.tensor import Source
from ckpt_callbacks.store import owner_of
from ckpt_callbacks.store.files import disk
from ckpt_callbacks.store.manifest import FileInfo, digest_of
from tests import processes
from tests.loop import Loop, checkpointer


def test_saves_keeps_and_explains(tmp_path):
    """Snapshots come when triggers say, rules keep some of them, and the journal tells every reason."""
    one = checkpointer(tmp_path)
    Loop(one).run(14)
    assert [snapshot.step for snapshot in one.snapshots()] == [8, 12, 14]
    assert one.best.step == 8
    assert one.best.reasons == ("every_steps(2)", "best loss 0 (was 4)")
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events].count("saved") == 7
    assert [event["event"] for event in events].count("dropped") == 4
    assert all("no rule keeps it" in event["why"] for event in events if event["event"] == "dropped")


@pytest.mark.parametrize("background", [True, False])
def test_a_snapshot_holds_the_moment_it_was_taken(tmp_path, background):
    """The loop changes its weights in place right after; each snapshot has the bytes of its own step."""
    one = checkpointer(tmp_path, keep=keep_all(), background=background)
    Loop(one).run(12)
    assert {s.step: float(s.weights()["w"][0]) for s in one.snapshots()} == {n: float(n) for n in range(2, 13, 2)}


class Steady(Loop):
    """An adapter whose weights stay as they are until the optimizer steps - unless something meddles with them."""

    def __init__(self, checkpointer: BaseCheckpointer, meddle_at: int = -1) -> None:
        super().__init__(checkpointer)
        self.weights, self.meddle_at = torch.zeros(300_000), meddle_at

    def capture(self) -> Captured:
        steady = {self.weights.data_ptr(): self.weights}
        return replace(super().capture(), steady=lambda: steady)

    def run(self, steps: int, **_: Any) -> Loop:
        self.checkpointer.begin({})
        self.checkpointer.rehearse(self.capture())
        for self.step in range(1, steps + 1):
            self.checkpointer.boundary(Progress(self.step, 0, self.step, self.step), Event.NONE, {}, self.capture)
            if self.step == self.meddle_at:
                self.weights += 100
            self.checkpointer.fence()
            self.weights += 1
        self.checkpointer.end()
        return self


@pytest.fixture
def beside(monkeypatch):
    """Every copy is made beside training, wherever it can be."""
    monkeypatch.setattr(Overlap, "pays", lambda self: True)


def held(one: BaseCheckpointer) -> dict[int, set[float]]:
    """Step -> the values among a snapshot's weights."""
    return {snapshot.step: set(snapshot.weights()["w"].tolist()) for snapshot in one.snapshots()}


def test_what_is_copied_beside_training_is_of_the_moment(tmp_path, beside):
    """Each snapshot has the weights of its boundary, though training went on."""
    one = checkpointer(tmp_path, keep=keep_all())
    Steady(one).run(9)
    assert held(one) == {step: {step - 1.0} for step in (2, 4, 6, 8)}


def test_a_torn_copy_is_discarded_and_taken_again(tmp_path, beside):
    """At the next boundary, for the same reasons, and for whoever asked; from then on copies are made at once."""
    one = checkpointer(tmp_path, keep=keep_all())
    asked = one.save("mine")
    Steady(one, meddle_at=1).run(5)
    assert held(one) == {2: {101.0}, 4: {103.0}}
    assert one.snapshots()[0].reasons == ("every_steps(2)", "manual: mine")
    assert asked.result().step == 2
    assert [snapshot.verify().ok for snapshot in one.snapshots()] == [True, True]
    events = [entry["event"] for entry in one._store.journal]
    assert events.count("torn") == 1


def test_a_torn_copy_at_the_end_is_told(tmp_path, beside):
    """Who asked for it learns that there is none."""
    one = checkpointer(tmp_path, keep=keep_all())
    asked = one.save()
    Steady(one, meddle_at=1).run(1)
    assert one.snapshots() == []
    with pytest.raises(StoreError, match="nothing was saved"):
        asked.result()


FAILS = every_steps(100) | on_exception()


@pytest.fixture
def _holds_always(monkeypatch):
    monkeypatch.setattr(reserve, "AT_ONCE", math.inf)


def left_by_an_exception(one: BaseCheckpointer, at: int) -> None:
    with pytest.raises(RuntimeError, match="killed"):
        Loop(one).run(at + 1, fail_at=at)


@pytest.mark.usefixtures("_holds_always")
@pytest.mark.parametrize("background", [True, False])
def test_an_exception_saves_what_is_held(tmp_path, background):
    """The newest boundary, with the weights that it had; a resume decides as if nothing had happened."""
    one = checkpointer(tmp_path, save=FAILS, background=background)
    left_by_an_exception(one, 5)
    assert held(one) == {5: {5.0}}
    assert one.latest.reasons == ("exception",)
    assert not one.latest.manifest.finished
    again = checkpointer(tmp_path, save=FAILS)
    assert Loop(again).run(7).weights[0] == 7
    assert again.resumed.step == 5


@pytest.mark.usefixtures("_holds_always")
@pytest.mark.parametrize(
    ("save", "at", "reasons"),
    [
        (every_steps(5) | on_exception(), 5, ("every_steps(5)",)),  # nothing is newer than that snapshot
        (on_exception() & every_steps(4), 6, ("exception", "every_steps(4)")),  # held at step 4, and not at 5
        (every_steps(100), 5, None),
        (FAILS, 0, None),  # it would be the state that the script makes anyway
    ],
)
def test_what_is_held_is_what_the_triggers_say(tmp_path, save, at, reasons):
    """The snapshot is the one that an exception causes where it is taken."""
    one = checkpointer(tmp_path, save=save)
    left_by_an_exception(one, at)
    assert (one.latest and one.latest.reasons) == reasons


@pytest.mark.usefixtures("_holds_always")
def test_training_that_ends_well_leaves_nothing_of_what_was_held(tmp_path):
    """Also if an exception comes after its last boundary."""
    one = checkpointer(tmp_path, save=FAILS)
    Loop(one).run(5)
    one.failed()
    assert one.snapshots() == []


@pytest.mark.usefixtures("_holds_always")
def test_a_torn_copy_is_not_held(tmp_path, monkeypatch):
    """Nor is another one owed for it; the next ones are made at once."""
    monkeypatch.setattr(Overlap, "is_free", lambda self: True)
    for meddled, expected in ((3, {}), (2, {3: {102.0}})):
        one = checkpointer(tmp_path / str(meddled), save=FAILS)
        loop = Steady(one, meddle_at=meddled)
        one.end, end = (lambda one=one: one.failed()), one.end
        loop.run(3)
        end()
        assert held(one) == expected


@pytest.mark.usefixtures("_holds_always")
def test_a_state_that_cannot_be_held_does_not_end_training(tmp_path, monkeypatch, caplog):
    """There may be no memory for it."""

    def none(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Arena, "lend", none)
    one = checkpointer(tmp_path, save=FAILS)
    left_by_an_exception(one, 5)
    assert one.snapshots() == []
    assert caplog.text.count("no state can be held in memory, and an exception will save nothing: MemoryError()") == 1


def test_what_training_ended_with_is_held_until_fit_is_over(tmp_path, monkeypatch):
    """Whatever it costs: the error of a callback's last hook would lose all of it."""
    monkeypatch.setattr(reserve, "AT_ONCE", -1e9)
    one = checkpointer(tmp_path, monitor=None, save=FAILS)
    end = one.end
    one.end = lambda: (one.failed(), end())
    Loop(one).run(5)
    assert held(one) == {5: {5.0}}
    assert one.latest.manifest.finished


@pytest.mark.usefixtures("_holds_always")
@pytest.mark.parametrize("where", ["loss", "weights"])
def test_an_unhealthy_state_is_not_held(tmp_path, where):
    """Who stops training because of NaN wants to go on from before."""
    one = checkpointer(tmp_path, monitor=None, save=every_steps(2) | on_exception(), keep=keep_all())
    loop = Loop(one)

    def loss(step: int) -> float:
        if where == "weights" and step >= 5:
            loop.weights[0] = np.nan
        return math.nan if where == "loss" and step >= 5 else 1.0

    loop.loss = loss
    with pytest.raises(RuntimeError, match="killed"):
        loop.run(9, fail_at=5)
    assert [snapshot.step for snapshot in one.snapshots()] == [2, 4]


def test_what_is_held_costs_no_more_than_its_share(tmp_path, monkeypatch):
    """Boundaries at which it is not time for another copy are passed over as if there were none."""
    monkeypatch.setattr(reserve, "SHARE", 1e-9)
    monkeypatch.setattr(reserve, "AT_ONCE", 1e-6)
    one = checkpointer(tmp_path, monitor=None, save=FAILS)
    monkeypatch.setattr(Saver, "hold", lambda self, *_: held.append(1) or 1)
    held: list[int] = []
    Loop(one).run(50)
    assert len(held) == 2  # the first, and that which training ends with
    assert one.rests(51, 51)


def test_without_count_and_glance_a_torn_copy_would_be_kept(tmp_path, beside, monkeypatch):
    """The control: what was changed under way is in the snapshot then."""
    lent = Source.lent

    def uncounted(self: Source, steady: Any) -> Lent | None:
        found = lent(self, steady)
        return found and Lent(found.data, lambda: 0)

    monkeypatch.setattr(Source, "lent", uncounted)
    monkeypatch.setattr(copying, "glance", lambda data: b"")
    monkeypatch.setattr(Copier, "begin", lambda self, work: late.append(work))
    late: list[Any] = []
    fence = BaseCheckpointer.fence
    monkeypatch.setattr(BaseCheckpointer, "fence", lambda self: ([work() for work in late], late.clear(), fence(self)))
    one = checkpointer(tmp_path, keep=keep_all())
    one.save()
    Steady(one, meddle_at=1).run(1)
    assert held(one) == {1: {100.0}}


def test_what_was_measured_is_never_copied_late(tmp_path, beside, monkeypatch):
    """The state with the best value could not be taken again a batch later."""
    one, copied = checkpointer(tmp_path, keep=keep_all()), []
    begin = Copier.begin
    monkeypatch.setattr(Copier, "begin", lambda self, work: (copied.append(loop.step), begin(self, work)))
    loop = Steady(one)
    one.begin({})
    for loop.step in range(1, 7):
        measured = {"loss": 1.0} if loop.step == 4 else {}
        event = Event.EPOCH_END if loop.step == 6 else Event.NONE
        one.boundary(Progress(loop.step, 0, loop.step, loop.step), event, measured, loop.capture)
        one.fence()
    one.end()
    assert list(held(one)) == [2, 4, 6]
    assert copied == [2]


def test_whoever_waits_on_the_training_thread_gets_the_verdict(tmp_path, beside):
    """Nobody else could give it: `wait` would never return."""
    one = checkpointer(tmp_path, keep=keep_all())
    loop = Steady(one)
    one.begin({})
    one.save()
    one.boundary(Progress(1, 0, 1, 1), Event.NONE, {}, loop.capture)
    one.wait()
    assert list(held(one)) == [1]
    assert one.best_model_path == ""
    one.end()


@pytest.mark.parametrize("meddle", [False, True])
def test_a_fit_that_ended_without_a_word(tmp_path, beside, meddle):
    """The next one of the same callback settles what was under way; who asked for it gets an answer."""
    one = checkpointer(tmp_path, keep=keep_all())
    loop = Steady(one)
    one.begin({})
    asked = one.save()
    one.boundary(Progress(1, 0, 1, 1), Event.NONE, {}, loop.capture)
    loop.weights += meddle
    Steady(one).run(1)
    assert asked.result(timeout=5).step == 1


def test_ctrl_c_while_training_waits_for_a_copy(tmp_path, beside, monkeypatch):
    """The end of fit settles it: nothing hangs."""
    one = checkpointer(tmp_path, keep=keep_all())
    loop = Steady(one)
    one.begin({})
    asked = one.save()
    conclude = Copying.conclude
    monkeypatch.setattr(Copying, "conclude", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
    one.boundary(Progress(1, 0, 1, 1), Event.NONE, {}, loop.capture)
    with pytest.raises(KeyboardInterrupt):
        one.fence()
    monkeypatch.setattr(Copying, "conclude", conclude)
    one.end()
    assert asked.result(timeout=5).step == 1


def test_a_save_that_cannot_begin_is_answered(tmp_path, beside, monkeypatch):
    """Who asked for it sees why, and nothing waits for it."""
    one = checkpointer(tmp_path, keep=keep_all())
    loop = Steady(one)
    one.begin({})
    asked = one.save()
    monkeypatch.setattr(Copier, "begin", lambda self, copying: (_ for _ in ()).throw(RuntimeError("no more threads")))
    with pytest.raises(RuntimeError, match="no more threads"):
        one.boundary(Progress(1, 0, 1, 1), Event.NONE, {}, loop.capture)
    with pytest.raises(RuntimeError, match="no more threads"):
        asked.result(timeout=5)
    one.end()


def test_without_a_fence_the_next_boundary_is_one(tmp_path, beside):
    """An adapter that forgets gets torn copies, and these are found."""
    one = checkpointer(tmp_path, keep=keep_all())
    loop = Steady(one)
    one.begin({})
    for step in range(1, 5):
        one.boundary(Progress(step, 0, step, step), Event.NONE, {}, loop.capture)
        loop.weights += 1
    one.end()
    assert held(one) == {3: {2.0}, 4: {3.0}}


@pytest.mark.parametrize("wanted", [True, False])
def test_python_looks_for_no_garbage_amid_a_save(tmp_path, wanted):
    """A walk over thousands of tensors would set it off again and again; after it all is as it was."""
    seen = []

    class Watched(Loop):
        def capture(self):
            seen.append(gc.isenabled())
            if self.step == 6:
                raise RuntimeError("no state to be had")
            return super().capture()

    (gc.enable if wanted else gc.disable)()
    try:
        with pytest.raises(RuntimeError, match="no state"):
            Watched(checkpointer(tmp_path)).run(9)
        assert (seen, gc.isenabled()) == ([wanted, False, False, False], wanted)  # the first one is a rehearsal
    finally:
        gc.enable()


def test_parents_form_a_chain_over_resumes(tmp_path):
    """Each snapshot continues from the one before, also across processes."""
    with pytest.raises(RuntimeError, match="killed"):
        Loop(checkpointer(tmp_path, keep=keep_all())).run(12, fail_at=5)
    Loop(checkpointer(tmp_path, keep=keep_all())).run(12)
    snapshots = Run(tmp_path / "run").snapshots()
    assert [s.manifest.parent for s in snapshots] == [None, *[s.id for s in snapshots[:-1]]]


def test_decisions_survive_a_resume(tmp_path):
    """The best value so far is remembered: after a resume a worse one is not called best."""
    with pytest.raises(RuntimeError, match="killed"):
        Loop(checkpointer(tmp_path, save=on_best(), keep=keep_all())).run(20, fail_at=10)
    Loop(checkpointer(tmp_path, save=on_best(), keep=keep_all())).run(20)
    assert [snapshot.step for snapshot in Run(tmp_path / "run").snapshots()] == [4, 8]


def test_resume_says_where_from(tmp_path, caplog):
    """One line at resume, and a report as data."""
    Loop(checkpointer(tmp_path)).run(5)
    one = checkpointer(tmp_path)
    with caplog.at_level("INFO"):
        Loop(one).run(9)
    assert one.resumed.step == 4
    assert f"resumed from {one.resumed.snapshot.id} at step 4" in caplog.text


def test_damage_is_stepped_over(tmp_path, caplog):
    """Automatic resume takes the newest snapshot that verifies, and names those it stepped over."""
    Loop(checkpointer(tmp_path, keep=keep_all())).run(8)
    newest = Run(tmp_path / "run").latest
    data = bytearray((newest.path / "model.safetensors").read_bytes())
    data[-3] ^= 4
    (newest.path / "model.safetensors").write_bytes(data)
    one = checkpointer(tmp_path)
    with caplog.at_level("INFO"):
        Loop(one).run(9)
    assert one.resumed.step == 6
    assert f"stepped over snapshot {newest.id}: model.safetensors has other bytes" in caplog.text
    aside = tmp_path / "run" / "damaged" / newest.id
    assert f"It is set aside as damaged/{newest.id}" in caplog.text
    assert (aside / "model.safetensors").read_bytes() == bytes(data)
    assert Run(tmp_path / "run").aside() == [aside]


def test_a_snapshot_of_a_later_version_is_refused_and_left_alone(tmp_path):
    """It is not damaged, and to go back behind it in silence would lose what that version has trained."""
    Loop(checkpointer(tmp_path, keep=keep_all())).run(8)
    newest = Run(tmp_path / "run").latest
    text = (newest.path / "manifest.json").read_text().replace('"format": 1', '"format": 2')
    (newest.path / "manifest.json").write_text(text)
    with pytest.raises(UnreachableError, match=r"is of format 2.*install that or a newer one.*name it with resume="):
        Loop(checkpointer(tmp_path)).run(9)
    assert (newest.path / "manifest.json").read_text() == text
    one = checkpointer(tmp_path, resume=f"{tmp_path}/run@6")
    Loop(one).run(9)
    assert one.resumed.step == 6


def test_a_flipped_format_is_damage(tmp_path, caplog):
    """One bit makes 1 to 3, 5 or 9; the digest tells that it was 1."""
    for number, flipped in enumerate("359"):
        directory = tmp_path / flipped
        Loop(checkpointer(directory, keep=keep_all())).run(8)
        path = Run(directory / "run").latest.path / "manifest.json"
        path.write_text(path.read_text().replace('"format": 1', f'"format": {flipped}'))
        one = checkpointer(directory)
        Loop(one).run(9)
        assert one.resumed.step == 6
        assert caplog.text.count("manifest.json was changed after it was written") == number + 1


def test_a_state_that_cannot_be_read_is_stepped_over(tmp_path, caplog):
    """Its digests are right, and what they vouch for is no state: it will never be one."""
    Loop(checkpointer(tmp_path, keep=keep_all())).run(8)
    newest = Run(tmp_path / "run").latest
    forge(newest, lambda tree: tree["weights"]["w"].update(ref="nope"))
    one = checkpointer(tmp_path)
    Loop(one).run(9)
    assert one.resumed.step == 6
    assert f"stepped over snapshot {newest.id}: its digests are right, but" in caplog.text
    assert "tensor 'nope' is not in the file" in caplog.text
    (aside,) = Run(tmp_path / "run").aside()
    with pytest.raises(CorruptSnapshotError, match=r"state\.json: .*'nope' is not in the file"):
        Loop(checkpointer(tmp_path / "other", resume=str(aside))).run(9)


@pytest.mark.parametrize("member", ["weights", "rest", "missing"])
@pytest.mark.parametrize("value", [[], None, 3, "x"])
def test_members_of_a_state_are_named_values(tmp_path, member, value):
    """Whatever a file says in their place is an error of ours."""
    Loop(checkpointer(tmp_path, keep=keep_all())).run(2)
    newest = Run(tmp_path / "run").latest
    forge(newest, lambda tree: tree.update({member: value}))
    with pytest.raises(CorruptSnapshotError, match=f"expected names of values in '{member}'"):
        Loop(checkpointer(tmp_path, resume=str(newest.path))).run(9)


def test_a_state_that_cannot_be_put_back_names_its_snapshot(tmp_path):
    """An adapter meets what it does not expect: the error says of which snapshot, and what can be done."""
    Loop(checkpointer(tmp_path)).run(2)
    restored = checkpointer(tmp_path).begin({})
    told = rf"{restored.snapshot.id} can't be put back.*KeyError: 'x'.*resume="
    with pytest.raises(ResumeError, match=told) as caught, restored.placing():
        restored.rest["x"]
    assert isinstance(caught.value.__cause__, KeyError)


def test_training_that_starts_from_the_beginning_says_why(tmp_path, caplog):
    """All that could be carried on from is damaged."""
    Loop(checkpointer(tmp_path)).run(4)
    for snapshot in Run(tmp_path / "run").snapshots():
        (snapshot.path / "manifest.json").write_text("{")
    one = checkpointer(tmp_path)
    Loop(one).run(1)
    assert one.resumed is None
    assert "training starts from the beginning" in caplog.text


def forge(snapshot, change) -> None:
    """Change a snapshot's tree, and sign it."""
    tree = json.loads((snapshot.path / "state.json").read_bytes())
    change(tree)
    (snapshot.path / "state.json").write_text(json.dumps(tree))
    data = (snapshot.path / "state.json").read_bytes()
    info = FileInfo(len(data), digest_of(data))
    manifest = replace(snapshot.manifest, files={**snapshot.manifest.files, "state.json": info})
    (snapshot.path / "manifest.json").write_bytes(manifest.to_bytes())


def test_a_flipped_bit_of_the_trace_accuses_nobody(tmp_path, caplog):
    """The step whose record is damaged is one that has left none; `verify` tells of it, and calls no snapshot bad."""
    with pytest.raises(RuntimeError, match="killed"):
        Loop(checkpointer(tmp_path, save=every_steps(4))).run(12, fail_at=7)
    path = tmp_path / "run" / "trace.bin"
    data = bytearray(path.read_bytes())
    data[32 * (1 + 6) + 16] ^= 1
    path.write_bytes(data)
    verified = Run(tmp_path / "run").verify()
    assert verified.ok
    assert verified.notes == ("trace.bin: 1 of its records are damaged: a resume compares no step with them",)
    one = checkpointer(tmp_path, save=every_steps(4))
    Loop(one).run(12)
    assert (one.resumed.step, one.resumed.proof.identical, one.resumed.proof.unknown) == (4, 2, 1)
    assert one.resumed.proof.differs is None
    assert "diverged" not in caplog.text


def of_another_kind(snapshot, version):
    """Let a snapshot's state hold a kind of value that this version doesn't know, as ``version`` might write it."""
    state = json.loads((snapshot.path / "state.json").read_bytes())
    state["rest"]["extra"] = {"$": "quaternion", "text": "1+i"}
    data = json.dumps(state).encode()
    (snapshot.path / "state.json").write_bytes(data)
    files = {**snapshot.manifest.files, "state.json": FileInfo(len(data), digest_of(data))}
    manifest = replace(snapshot.manifest, files=files, versions={"ckpt_callbacks": version})
    (snapshot.path / "manifest.json").write_bytes(manifest.to_bytes())


def test_what_a_later_version_wrote_is_refused_and_left_as_it_is(tmp_path):
    """It is whole, and whoever wrote it has trained further. `verify` says so, and `repair` does not touch it."""
    Loop(checkpointer(tmp_path)).run(8)
    run = Run(tmp_path / "run")
    of_another_kind(run.latest, "9.1")
    later = run.latest.id
    said = r"unknown kind 'quaternion'.*ckpt_callbacks 9\.1 wrote it"
    for _ in range(2):
        with pytest.raises(UnreachableError, match=said + r".*To go on from an older snapshot, name it with resume="):
            checkpointer(tmp_path).begin({})
        assert run.latest.id == later
        (problem,) = run.verify().problems
        assert (problem.snapshot, problem.damage) == (later, False)
        assert run.repair().left == (problem,)
    with pytest.raises(UnreachableError, match=said):
        checkpointer(tmp_path, resume=f"{run.path}@{later}").begin({})
    (run.path / "damaged").mkdir()
    run.latest.path.rename(run.path / "damaged" / later)
    assert run.repair().back == ()


def test_what_no_version_can_read_stays_aside(tmp_path):
    """A whole snapshot that makes no sense is damaged: what a resume sets aside, a repair does not bring back."""
    Loop(checkpointer(tmp_path)).run(8)
    run = Run(tmp_path / "run")
    of_another_kind(run.latest, run.latest.manifest.versions["ckpt_callbacks"])
    bad = run.latest.id
    (problem,) = run.verify().problems
    assert problem.snapshot == bad
    assert problem.damage
    assert run.verify(full=False).ok
    one = checkpointer(tmp_path)
    assert one.begin({}).snapshot.id != bad
    one.end()
    done = run.repair()
    assert (done.back, dict(done.aside), [path.name for path in run.aside()]) == ((), {}, [bad])


def die_loading(folder: str) -> None:
    """A process that is killed while it loads."""
    os.chdir(folder)
    resume.fresh = lambda size: os.kill(os.getpid(), signal.SIGKILL)
    Loop(checkpointer(Path(folder))).run(9)


def test_a_snapshot_that_kills_every_process_is_stepped_over(tmp_path, caplog):
    """After three deaths; not before, and not if it is the only one. A resume that succeeds counts anew."""
    Loop(checkpointer(tmp_path, keep=keep_all())).run(4)
    deadly = Run(tmp_path / "run").latest
    for _ in range(3):
        assert processes.run(die_loading, str(tmp_path), options={}, log=tmp_path / "log") == processes.KILLED
    one = checkpointer(tmp_path, keep=keep_all())
    Loop(one).run(3)
    assert one.resumed.step == 2
    assert f"stepped over snapshot {deadly.id}: 3 processes in a row died while they loaded it" in caplog.text
    assert deadly.path.is_dir()
    assert not (tmp_path / "run" / ".resuming").exists()


def die_at(folder: str, where: str) -> None:
    """A process that is killed on its way from the snapshot to the first step."""
    os.chdir(folder)
    one = checkpointer(Path(folder))
    restored = one.begin({})
    with one.loading(restored):
        if where == "loading":
            processes.die()
    processes.die()


def test_who_dies_amid_the_users_code_died_of_no_snapshot(tmp_path):
    """A scheduler may end a job again and again while it draws batches once more; but not while state is put back."""
    Loop(checkpointer(tmp_path, keep=keep_all())).run(4)
    newest = Run(tmp_path / "run").latest.id
    for where in ["on the way"] * 4 + ["loading"] * 2 + ["on the way"]:
        assert processes.run(die_at, str(tmp_path), where, options={}, log=tmp_path / "log") == processes.KILLED
    one = checkpointer(tmp_path, keep=keep_all())
    assert one.begin({}).snapshot.id == newest
    one.end()
    for _ in range(3):
        processes.run(die_at, str(tmp_path), "loading", options={}, log=tmp_path / "log")
    assert one.begin({}).snapshot.id != newest
    one.end()


def test_a_deadly_snapshot_stays_stepped_over(tmp_path, caplog):
    """Also if the process that stepped over it dies before its next save; until it is named, or the run repaired."""
    Loop(checkpointer(tmp_path, keep=keep_all())).run(4)
    run = Run(tmp_path / "run")
    deadly = run.latest.id
    (run.path / ".resuming").write_text(json.dumps({"id": deadly, "deaths": 3}))
    for _ in range(5):
        one = checkpointer(tmp_path, keep=keep_all())
        with pytest.raises(RuntimeError, match="killed"):
            Loop(one).run(4, fail_at=2)
        assert one.resumed.step == 2
    assert caplog.text.count(f"stepped over snapshot {deadly}") == 5
    assert run.repair().forgiven == (deadly,)
    one = checkpointer(tmp_path, keep=keep_all())
    Loop(one).run(4)
    assert one.resumed.snapshot.id == deadly
    (run.path / ".deadly").write_text(json.dumps({deadly: 3}))
    one = checkpointer(tmp_path, keep=keep_all(), resume=f"{run.path}@{deadly}")
    Loop(one).run(4)
    assert one.resumed.snapshot.id == deadly
    assert not (run.path / ".deadly").exists()


def test_a_deadly_snapshot_that_is_gone_is_forgotten(tmp_path):
    """The list does not outlive what it speaks of."""
    Loop(checkpointer(tmp_path)).run(4)
    (tmp_path / "run" / ".deadly").write_text(json.dumps({"000000009-abcdef": 3}))
    Loop(checkpointer(tmp_path)).run(6)
    assert not (tmp_path / "run" / ".deadly").exists()


def test_the_only_snapshot_is_tried_again_and_again(tmp_path, caplog):
    """To start afresh would be worse; but that it is so is said."""
    Loop(checkpointer(tmp_path)).run(2)
    (tmp_path / "run" / ".resuming").write_text(json.dumps({"id": Run(tmp_path / "run").latest.id, "deaths": 7}))
    one = checkpointer(tmp_path)
    Loop(one).run(3)
    assert one.resumed.step == 2
    assert "processes died of while they loaded them" in caplog.text
    assert "(7 in a row). The newest is tried again" in caplog.text


def test_a_named_snapshot_that_is_damaged_is_an_error(tmp_path):
    """Who names a snapshot gets that one or an error."""
    Loop(checkpointer(tmp_path)).run(8)
    (Run(tmp_path / "run").latest.path / "state.json").write_text("{}")
    with pytest.raises(CorruptSnapshotError, match=r"state\.json"):
        BaseCheckpointer(tmp_path / "fork", resume=f"{tmp_path}/run@latest").begin({})


def test_state_is_tried_before_training(tmp_path):
    """What can't be stored is refused when fit starts, with its path; what resume doesn't need is not."""
    with pytest.raises(UnstorableError, match="extra"):
        Loop(checkpointer(tmp_path, exact="require"), extra=object()).run(4)
    Loop(checkpointer(tmp_path, exact="require")).run(4)
    assert "object object" in (Run(tmp_path / "run").latest.path / "state.json").read_text()


def test_a_failed_save_is_never_silent(tmp_path, monkeypatch):
    """A full disk: the error reaches training at the next hook; the snapshots from before are intact."""
    Loop(checkpointer(tmp_path)).run(4)
    monkeypatch.setattr(disk, "write", full_disk)
    one = checkpointer(tmp_path)
    with pytest.raises(StoreError, match="No space left"):
        Loop(one).run(20)
    assert one.resumed.step == 4
    monkeypatch.undo()
    assert Run(tmp_path / "run").verify()
    assert Run(tmp_path / "run").latest.step == 4


def test_a_failed_save_may_be_a_warning(tmp_path, monkeypatch, caplog):
    """With `on_error="warn"` training goes on, and the next trigger tries again."""
    one = checkpointer(tmp_path, on_error="warn", background=False)
    loop = Loop(one)
    fsync = disk.fsync
    monkeypatch.setattr(disk, "fsync", lambda descriptor: full_disk() if loop.step == 2 else fsync(descriptor))
    with caplog.at_level("WARNING"):
        loop.run(6)
    assert [snapshot.step for snapshot in one.snapshots()] == [4, 6]
    assert "a save failed, training goes on" in caplog.text


def full_disk(*_: object) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_manual_saves_share_one_snapshot(tmp_path):
    """Two requests before the same boundary get the same snapshot; one that comes too late is told so."""
    one = checkpointer(tmp_path, save=on_end())
    first, second = one.save("a"), one.save("b")
    Loop(one).run(3)
    assert first.result().step == second.result().step == 1
    late = one.save()
    one.end()
    with pytest.raises(StoreError, match="training ended"):
        late.result()


def test_save_from_another_thread(tmp_path):
    """`save()` may be called from anywhere; the snapshot is still taken by the training thread."""
    one = checkpointer(tmp_path, save=on_end())
    futures = []
    thread = threading.Thread(target=lambda: futures.append(one.save("from a thread")))
    thread.start()
    thread.join()
    Loop(one).run(3)
    assert futures[0].result().note == "from a thread"


def test_weights_only(tmp_path):
    """`content="weights"` stores the model and no more, and is nothing to resume from."""
    one = checkpointer(tmp_path, content="weights")
    Loop(one).run(4)
    assert {path.name for path in one.latest.path.iterdir()} == {"manifest.json", "model.safetensors", "state.json"}
    again = checkpointer(tmp_path)
    Loop(again).run(2)
    assert again.resumed is None


def test_end_may_be_repeated(tmp_path):
    """An adapter may end a fit from several hooks; the run is free afterwards."""
    one = checkpointer(tmp_path)
    one.begin({})
    one.end()
    one.end()
    assert owner_of(tmp_path / "run") is None


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"mode": "down"}, "mode='down' is not known"),
        ({"monitor": "foo"}, "Pass mode="),
        ({"content": "all"}, "content='all' is not known: expected 'full' or 'weights'"),
        ({"exact": True}, "exact=True is not known"),
        ({"on_error": "ignore"}, "on_error='ignore'"),
        ({"durability": "some"}, "durability='some'"),
        ({"mirrors": ["s3://b"]}, "mirrors are not available yet"),
        ({"keep": []}, "keeps nothing"),
        ({"save": []}, "never save"),
        ({"monitor": None, "save": on_best()}, "needs a metric"),
        ({"keep": keep_last}, "keep"),
    ],
)
def test_bad_arguments_fail_at_construction(tmp_path, options, sentence):
    """With a sentence that says what was found and what is expected; nothing is created."""
    with pytest.raises(ConfigurationError, match=sentence.replace("(", r"\(")):
        checkpointer(tmp_path, **options)
    assert not (tmp_path / "run").exists()


def test_cloud_directories_are_refused_for_now():
    """A URL is not mistaken for a relative path."""
    with pytest.raises(ConfigurationError, match="cloud stores are not available yet"):
        BaseCheckpointer("s3://bucket/run")


def test_must_and_never(tmp_path):
    """`resume="must"` wants a run and `"never"` wants none."""
    with pytest.raises(ResumeError, match="holds no good full snapshot"):
        checkpointer(tmp_path, resume="must").begin({})
    Loop(checkpointer(tmp_path)).run(2)
    with pytest.raises(ResumeError, match="already holds a run"):
        checkpointer(tmp_path, resume="never").begin({})


def test_a_broken_rule_does_not_lose_a_snapshot(tmp_path, caplog):
    """A user's rule that raises is reported; the snapshot that was just written stays."""
    one = checkpointer(tmp_path, keep=keep_when(lambda record: record.nonsense))
    with caplog.at_level("WARNING"):
        Loop(one).run(4)
    assert [snapshot.step for snapshot in one.snapshots()] == [2, 4]
    assert "could not be tidied up" in caplog.text


def test_a_run_of_another_framework_is_refused(tmp_path):
    """A directory that another framework trains in is not carried on from by mistake."""
    one = checkpointer(tmp_path)
    one.framework = "something"
    Loop(one).run(4)
    with pytest.raises(ResumeError, match="was written by something"):
        checkpointer(tmp_path).begin({})


def test_a_snapshot_that_does_not_say_who_wrote_it_is_carried_on_from(tmp_path):
    """`framework` is optional, so what verifies without it resumes as well."""
    Loop(checkpointer(tmp_path)).run(4)
    newest = Run(tmp_path / "run").latest
    nobody = replace(newest.manifest, framework=None)
    (newest.path / "manifest.json").write_bytes(nobody.to_bytes())
    one = checkpointer(tmp_path)
    Loop(one).run(6)
    assert one.resumed.snapshot.id == newest.id


def test_a_program_may_change_its_directory(tmp_path, monkeypatch):
    """A relative path means what it meant when the callback was made."""
    monkeypatch.chdir(tmp_path)
    one = BaseCheckpointer("runs/a", save=every_steps(2))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    Loop(one).run(4)
    assert [snapshot.step for snapshot in one.snapshots()] == [2, 4]
    assert (tmp_path / "runs" / "a" / "run.json").exists()


@pytest.mark.parametrize("directory", [None, "", 3, b"x"])
def test_a_directory_is_a_path(directory):
    """Anything else is refused rather than turned into text."""
    with pytest.raises(ConfigurationError, match="expected a path"):
        BaseCheckpointer(directory)


@pytest.mark.parametrize("resume", [None, True, "", 1200])
def test_resume_is_a_word_or_a_reference(tmp_path, resume):
    """Anything else is refused when the callback is made, not when training starts."""
    with pytest.raises(ConfigurationError, match="expected 'auto', 'must', 'never', or a reference"):
        checkpointer(tmp_path, resume=resume)


def test_best_is_never_passed_off(tmp_path):
    """Without a monitor "best" means the latest; with one that was never measured there is none."""
    plain, missing = BaseCheckpointer(tmp_path / "a"), BaseCheckpointer(tmp_path / "b", monitor="val_acc")
    for one in (plain, missing):
        Loop(one).run(3)
    assert plain.best_model_path == str(plain.latest.path)
    assert missing.latest is not None
    assert missing.best_model_path == ""


def crashed(tmp_path) -> None:
    """A run that died at step 7; its newest snapshot is of step 6."""
    with pytest.raises(RuntimeError, match="killed"):
        Loop(checkpointer(tmp_path, save=every_steps(3), on_error="warn")).run(12, fail_at=8)


def test_a_resume_is_verified(tmp_path, caplog):
    """Steps computed again are compared with what they gave before, and the user is told."""
    crashed(tmp_path)
    one = checkpointer(tmp_path, save=every_steps(3))
    with caplog.at_level("INFO", "ckpt_callbacks"):
        Loop(one).run(12)
    assert "resume verified: 2 steps identical" in caplog.messages
    assert (one.resumed.proof.identical, one.resumed.proof.differs) == (2, None)
    last = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert [entry["identical"] for entry in last if entry["event"] == "verified"] == [2]


def test_a_resume_that_diverges_is_told_with_causes(tmp_path, caplog, monkeypatch):
    """The first step that differs is named, and what may be the cause."""
    crashed(tmp_path)
    monkeypatch.setattr("ckpt_callbacks.checkpointer.machine", lambda: {"processor": "another"})
    one = checkpointer(tmp_path, save=every_steps(3))
    loop = Loop(one)
    loop.loss = lambda step: 1 / step if step < 8 else 0.0
    loop.run(12)
    (diverged,) = [message for message in caplog.messages if message.startswith("resume diverged")]
    assert diverged.startswith(
        "resume diverged: step 8 is the first that differs (loss 0.125 before the crash, 0.0 now)"
    )
    assert "what is not as it was: processor" in diverged
    assert "not deterministic" in diverged
    assert one.resumed.proof.differs is not None


def test_another_machine_is_named(tmp_path, caplog, monkeypatch):
    """A resume on another machine or other versions works, and says that bits may differ and why."""
    crashed(tmp_path)
    monkeypatch.setattr("ckpt_callbacks.checkpointer.machine", lambda: {"processor": "another"})
    one = checkpointer(tmp_path)
    Loop(one).run(12)
    assert one.resumed.differences["processor"][1] == "another"
    assert any("not as it was when the snapshot was taken: processor (" in message for message in caplog.messages)


def test_a_run_that_starts_afresh_is_not_compared(tmp_path, caplog):
    """Steps of a run that was not carried on are forgotten."""
    crashed(tmp_path)
    for snapshot in checkpointer(tmp_path).snapshots():
        (snapshot.path / "manifest.json").unlink()
    with caplog.at_level("INFO", "ckpt_callbacks"):
        Loop(checkpointer(tmp_path)).run(12)
    assert not any("verified" in message for message in caplog.messages)


def test_the_start_says_how_exact_a_resume_will_be(tmp_path, caplog):
    """One line when training starts; what can't be captured is in it."""
    with caplog.at_level("INFO", "ckpt_callbacks"):
        Loop(checkpointer(tmp_path)).run(2)
        Loop(checkpointer(tmp_path / "lost"), extra=object()).run(2)
    starts = [message for message in caplog.messages if message.startswith("killed at any time")]
    assert starts[0].startswith("killed at any time, this run resumes exactly; ")
    assert starts[1].startswith("killed at any time, this run resumes exactly but for extra; ")


# Best values ---------------------------------------------------------------------------------------------------------


def measuring(losses: Mapping[int, float], one: BaseCheckpointer) -> Loop:
    """A loop that measures these losses, by step."""
    loop = Loop(one)
    loop.metrics = lambda step: {"loss": losses.get(step, 9.0)}
    return loop


def put_back(one: BaseCheckpointer) -> int | None:
    """The step of the snapshot that is put into the model."""
    steps: list[int] = []

    def load(path: Path) -> None:
        snapshot = resolve_reference(path)
        snapshot.verify().require_ok()
        steps.append(snapshot.step)

    one.put_best_back(load)
    return steps[-1] if steps else None


def test_who_goes_back_has_no_best_of_what_is_left_behind(tmp_path):
    """Nor does an abandoned snapshot count before the first of the new line is there, nor a value that is gone."""
    measuring({4: 0.9, 8: 0.5, 12: 0.6, 16: 0.1}, checkpointer(tmp_path, keep=[keep_last(2), keep_best(1)])).run(16)
    assert [snapshot.step for snapshot in Run(tmp_path / "run").snapshots()] == [14, 16]
    two = checkpointer(tmp_path, save=on_best(), keep=keep_best(1), resume=f"{tmp_path / 'run'}@14", restore_best=True)
    seen = []
    loop = measuring({16: 0.55, 20: 0.58}, two)
    measured = loop.metrics
    loop.metrics = lambda step: seen.append((two.best, two.latest.step)) or measured(step)
    loop.run(20)
    assert seen[0] == (None, 14)  # the abandoned one with 0.1 is not it
    assert put_back(two) == two.best.step == 16
    assert two.best.metrics["loss"] == 0.55


def test_a_fork_has_a_best_of_its_own(tmp_path):
    """What its parent has is the parent's, also where the fork never gets as good."""
    measuring({4: 0.1}, checkpointer(tmp_path)).run(4)
    fork = BaseCheckpointer(
        tmp_path / "fork", monitor="loss", save=on_best(), resume=f"{tmp_path / 'run'}@best", restore_best=True
    )
    measuring({8: 0.7, 12: 0.8}, fork).run(12)
    assert put_back(fork) == 8


def test_another_reference_begins_another_line(tmp_path, monkeypatch, caplog):
    """`resume=` is exactly that snapshot, unless the line of training was begun from it: then it carries on."""
    monkeypatch.chdir(tmp_path)
    Loop(checkpointer(tmp_path / "a", keep=keep_all())).run(8)
    starts = []

    def carried_on_from(reference):
        one = checkpointer(tmp_path / "b", keep=keep_all(), resume=reference)
        Loop(one).run(one_more := (starts[-1][1] if starts else 4) + 2)
        starts.append((one.resumed and one.resumed.snapshot.run_path.parent.name, one_more))
        return one.resumed and (starts[-1][0], one.resumed.step)

    assert carried_on_from("auto") is None
    assert carried_on_from("a/run@4") == ("a", 4)
    assert "holds 3 snapshots of another line of training, which a/run@4 leaves behind" in caplog.text
    assert carried_on_from(str(tmp_path / "a/run@4")) == ("b", 8)
    assert carried_on_from("a/run@6") == ("a", 6)
    assert carried_on_from("auto") == ("b", 12)
    assert carried_on_from("a/run@6") == ("b", 14)


def test_a_best_that_a_narrowed_trigger_misses_is_saved_to_be_restored(tmp_path):
    """`restore_best` means the best, whatever `save` says."""
    save = (on_best() & every_steps(8)) | every_steps(100)
    one = checkpointer(tmp_path, save=save, keep=keep_last(1), restore_best=True)
    measuring({4: 0.1, 8: 0.9, 12: 0.5}, one).run(12)
    assert put_back(one) == 4


class Restoring(Loop):
    """Puts the best weights back when training is over, as an adapter does."""

    def __init__(self, one: BaseCheckpointer, before: Callable[[BaseCheckpointer], object] = lambda one: None) -> None:
        super().__init__(one)
        self.before, self.put_back, end = before, None, one.end
        one.end = lambda: (self.restore_best(), end())

    def restore_best(self) -> None:
        self.checkpointer.wait()
        self.before(self.checkpointer)
        self.put_back = put_back(self.checkpointer)


def spoil(*names: str) -> Callable[[BaseCheckpointer], None]:
    """Damages files of the best snapshots, one of each."""

    def deed(one: BaseCheckpointer) -> None:
        ranked = sorted(one.snapshots(), key=lambda snapshot: snapshot.metrics.get("loss", 99))
        for snapshot, name in zip(ranked, names, strict=False):
            with open(snapshot.path / name, "r+b") as file:
                file.seek(-3, os.SEEK_END)
                file.write(b"?")

    return deed


def die_restoring(folder: str) -> None:
    """A process that is killed while it puts the best weights back, whatever its attempt to resume did."""
    os.chdir(folder)
    one = checkpointer(Path(folder), keep=keep_all(), restore_best=True)
    one.begin({})
    one.arrived()
    one.put_best_back(lambda path: processes.die())


def test_a_best_snapshot_that_kills_every_process_gives_way_to_the_next_best(tmp_path, caplog):
    """After three deaths, and it stays so; it is left as it is, a resume does not mind, and a repair tries it again."""
    Loop(checkpointer(tmp_path, keep=keep_all())).run(16)
    run = Run(tmp_path / "run")
    best, newest = run.best(), run.latest
    for _ in range(3):
        assert processes.run(die_restoring, str(tmp_path), options={}, log=tmp_path / "log") == processes.KILLED
    for number in (1, 2):
        one = checkpointer(tmp_path, keep=keep_all(), restore_best=True)
        loop = Restoring(one)
        loop.run(16)
        assert (one.resumed.snapshot.id, loop.put_back) == (newest.id, 4)
        assert caplog.text.count(f"stepped over snapshot {best.id}: 3 processes in a row died while they put") == number
    assert best.verify().ok
    assert (run.best().id, (run.path / "best").readlink().name) == (best.id, best.id)
    assert not (run.path / ".restoring").exists()
    assert run.repair().forgiven == (best.id,)
    loop = Restoring(checkpointer(tmp_path, keep=keep_all(), restore_best=True))
    loop.run(16)
    assert loop.put_back == 8


@pytest.mark.parametrize("name", ["model.safetensors", "manifest.json", "state.json"])
def test_a_best_snapshot_that_is_damaged_gives_way_to_the_next_best(tmp_path, caplog, name):
    """It is named and set aside, and what is said is true."""
    caplog.set_level("INFO")
    one = checkpointer(tmp_path, keep=keep_all(), restore_best=True)
    loop = Restoring(one, spoil(name))
    loop.run(16)
    assert (loop.put_back, one.best.step) == (4, 4)
    run = Run(tmp_path / "run")
    bad = next(path.name for path in (run.path / "damaged").iterdir())
    assert bad.startswith("000000008-")
    assert f"stepped over snapshot {bad}: " in caplog.text
    assert f"It is set aside as damaged/{bad}" in caplog.text
    assert f"weights of the best snapshot now: {bad}" not in caplog.text
    assert f"snapshot now: {one.best.id}" in caplog.text
    assert run.verify()
    assert (run.path / "best").resolve() == one.best.path


def test_without_a_good_best_snapshot_the_model_stays_as_it_is(tmp_path, caplog):
    """A fit that is over is not ended by an error."""
    one = checkpointer(tmp_path, save=every_steps(4), keep=keep_all(), restore_best=True)
    loop = Restoring(one, spoil(*["model.safetensors"] * 2))
    loop.run(8)
    assert loop.put_back is None
    assert "the best snapshots can't be read: the model is as training left it" in caplog.text
    assert len(list((tmp_path / "run" / "damaged").iterdir())) == 2


def test_who_does_not_hold_the_run_sets_nothing_aside(tmp_path, caplog):
    """It may be another process's by then."""
    one = checkpointer(tmp_path, keep=keep_all(), restore_best=True)
    Loop(one).run(8)
    spoil("model.safetensors")(one)
    assert put_back(one) == 4
    assert "stepped over snapshot 000000008-" in caplog.text
    assert not (tmp_path / "run" / "damaged").exists()


def test_a_best_snapshot_that_cannot_be_read_now_is_not_set_aside(tmp_path, caplog):
    """It may be good."""
    one = checkpointer(tmp_path, keep=keep_all(), restore_best=True)

    def unreachable(path: Path) -> None:
        if path.name.startswith("000000008-"):
            raise UnreachableError("the disk is away.")

    loop = Restoring(one)
    loop.restore_best = lambda: one.put_best_back(unreachable)
    loop.run(8)
    assert "stepped over snapshot" in caplog.text
    assert not (tmp_path / "run" / "damaged").exists()


@pytest.mark.parametrize("background", [True, False])
def test_a_value_measured_on_weights_that_are_no_numbers_is_no_best(tmp_path, background):
    """Later values are compared with the best healthy one, and saved."""
    one = checkpointer(tmp_path, save=on_best(), keep=keep_all(), background=background)
    loop = measuring({4: 0.9, 8: 0.1, 12: 0.5, 16: 0.7}, one)
    measured = loop.metrics

    def at(step: int) -> dict[str, float]:
        loop.weights[0] = np.nan if step == 8 else float(step)
        return measured(step)

    loop.metrics = at
    loop.run(16)
    assert [snapshot.step for snapshot in one.snapshots()] == [4, 12]
    assert one.best.step == 12


@pytest.mark.parametrize("background", [True, False])
def test_a_best_value_whose_save_failed_is_forgotten(tmp_path, monkeypatch, background):
    """The next that is better than what there is on disk is saved, in this process and in the next."""
    options = {"save": on_best(), "keep": keep_best(2), "on_error": "warn", "background": background}
    one = checkpointer(tmp_path, **options)
    loop = measuring({4: 0.9, 8: 0.1, 12: 0.7, 16: 0.8}, one)
    failing_at(8, loop, monkeypatch)
    loop.loss = lambda step: one._saver.wait() or 1.0  # so that its end is known by then
    loop.run(16)
    assert [snapshot.reasons for snapshot in one.snapshots()] == [("best loss 0.9",), ("best loss 0.7 (was 0.9)",)]
    again = checkpointer(tmp_path, **options)
    measuring({16: 0.75, 20: 0.6}, again).run(20)
    assert again.best.reasons == ("best loss 0.6 (was 0.7)",)


def test_a_snapshot_that_is_under_way_counts_when_another_failed(tmp_path, monkeypatch):
    """A value is measured against all that may yet be there."""
    one = checkpointer(tmp_path, save=on_best() | every_steps(4), keep=keep_all(), on_error="warn")
    loop = measuring({4: 0.9, 8: 0.1, 12: 0.5, 16: 0.7}, one)
    may_end = {8: threading.Event(), 12: threading.Event()}
    failing_at(8, loop, monkeypatch)
    commit, advance = one._store.commit, loop.advance

    def committing(draft, files):
        assert draft.progress.step not in may_end or may_end[draft.progress.step].wait(10)
        return commit(draft, files)

    def advancing() -> None:
        advance()
        if loop.step == 13:
            may_end[8].set()
            while len(one._saver.under_way()) > 1:
                time.sleep(0.01)
        elif loop.step == 17:
            may_end[12].set()

    monkeypatch.setattr(one._store, "commit", committing)
    loop.advance = advancing
    loop.run(17)
    assert [(snapshot.step, snapshot.reasons[1:]) for snapshot in one.snapshots()] == [
        *((4, ("every_steps(4)",)), (12, ()), (16, ()))
    ]
    assert one._decisions.past.best == {"loss:min": 0.5}


def test_weights_that_turn_out_to_be_no_numbers_take_their_value_with_them(tmp_path):
    """What is said to stay the same is looked at by the writer only."""
    one = checkpointer(tmp_path, save=on_best(), keep=keep_all(), background=False)
    loop = measuring({4: 0.9, 8: 0.1, 12: 0.5}, one)
    capture = loop.capture

    def captured() -> Captured:
        state = capture()
        fixed = np.full(3, np.nan if loop.step == 8 else 1.0)
        return replace(state, weights={**state.weights, "fixed": fixed}, trained={"w"}, frozen={"fixed"})

    loop.capture = captured
    loop.run(12)
    assert [(snapshot.step, snapshot.manifest.unhealthy) for snapshot in one.snapshots()] == [
        *((4, None), (8, "fixed is not finite"), (12, None))
    ]
    assert one.best.step == 12


@pytest.mark.parametrize(("keep", "saved"), [(keep_best(1), True), (keep_all(), True), (keep_last(1), False)])
def test_a_best_that_somebody_deleted_is_forgotten_at_a_resume(tmp_path, keep, saved):
    """Only if the rules would have kept it: what they drop was measured all the same."""
    options = {"save": on_best() | every_steps(2), "keep": [keep_last(1), keep]}
    run = measuring({4: 0.9, 8: 0.1, 12: 0.95}, checkpointer(tmp_path, **options)).run(14).checkpointer._run
    if saved:
        shutil.rmtree(run.get(8).path)
    again = checkpointer(tmp_path, **options)
    measuring({16: 0.5}, again).run(16)
    assert any("best loss 0.5" in reason for reason in again.latest.reasons) is saved


def test_a_request_that_meets_a_failed_save_is_answered(tmp_path, monkeypatch):
    """With the error: nobody waits for ever."""
    one = checkpointer(tmp_path, background=False)
    loop, futures = Loop(one), []
    failing_at(2, loop, monkeypatch)
    loop.loss = lambda step: 1.0 if step != 3 else futures.append(one.save()) or 1.0
    with pytest.raises(StoreError, match="No space left"):
        loop.run(6)
    assert isinstance(futures[0].exception(timeout=5), StoreError)


def failing_at(step: int, loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the disk be full for the snapshot of that step."""
    commit = loop.checkpointer._store.commit

    def committing(draft, files):
        with monkeypatch.context() as patch:
            if draft.progress.step == step:
                patch.setattr(disk, "fsync", full_disk)
            return commit(draft, files)

    monkeypatch.setattr(loop.checkpointer._store, "commit", committing)


def test_all_notes_are_kept(tmp_path):
    """Requests that meet at one boundary share a snapshot, which has what each of them said."""
    one = checkpointer(tmp_path, save=every_steps(100))
    for note in ("one", None, "two", "one"):
        one.save(note)
    Loop(one).run(3)
    assert [(snapshot.note, snapshot.reasons) for snapshot in one.snapshots()] == [("one; two", ("manual: one; two",))]


def test_a_request_that_comes_too_late_is_told(tmp_path, caplog):
    """The last boundary is before anybody is told that training has ended."""
    one = checkpointer(tmp_path)
    loop = Loop(one)
    end = one.end
    one.end = lambda: (one.save("the last words"), end())
    loop.run(2)
    assert "asked for after the last boundary of training ('the last words')" in caplog.text


# What is told early ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", ["val_loss", "train/loss", "Loss2"])
@pytest.mark.parametrize("value", [np.float32("nan"), math.inf])
def test_a_loss_that_is_no_number_is_unhealthy_though_another_metric_is_monitored(tmp_path, bad, value):
    """The weights may still look well: nothing measured on them counts as the best."""
    one = checkpointer(tmp_path, monitor="acc", save=every_steps(4) | on_best(), keep=keep_all())
    loop = Loop(one)
    loop.metrics = lambda step: {"acc": step / 100, bad: value if step == 8 else 0.5, "lossless": math.nan}
    loop.run(8)
    assert [snapshot.manifest.unhealthy for snapshot in one.snapshots()] == [None, f"{bad} is {float(value)}"]
    assert one.best.step == 4


def test_a_metric_that_is_no_number_and_no_loss_is_none_of_ours(tmp_path):
    """A score of a class that did not occur, say; nor does what is no single number matter."""
    one = checkpointer(tmp_path, monitor="acc", save=every_steps(4), keep=keep_all())
    loop = Loop(one)
    loop.metrics = lambda step: {"acc": 0.5, "f1": math.nan, "loss_by_class": np.full(3, math.nan)}
    loop.run(4)
    assert one.latest.manifest.unhealthy is None


def test_a_fit_in_which_nothing_fires_is_told_before_and_after(tmp_path, caplog):
    """That `on_exception()` alone saves nothing is not found out after ten hours."""
    one = checkpointer(tmp_path, monitor=None, save=on_exception())
    one.watch(validates=True)
    assert "nothing that save=on_exception() waits for happens" in caplog.text
    Loop(one).run(4)
    assert "no snapshot: no trigger fired (save=on_exception())" in caplog.text


def test_a_fit_without_a_save_is_not_spoken_of_if_the_run_has_snapshots(tmp_path, caplog):
    """By this fit, also if its write failed and that was told, or by an earlier one."""
    Loop(checkpointer(tmp_path)).run(4)
    Loop(checkpointer(tmp_path, save=every_steps(100))).run(6)
    assert "no trigger fired" not in caplog.text


def test_a_fit_that_an_exception_ends_is_not_told_that_nothing_fired(tmp_path, caplog):
    """It has other worries, and was not over."""
    with pytest.raises(RuntimeError, match="killed"):
        Loop(checkpointer(tmp_path, save=every_steps(100))).run(6, fail_at=3)
    assert "no trigger fired" not in caplog.text


def test_a_function_is_asked_once_at_each_boundary(tmp_path):
    """Also where something was measured, where it is the best, and where that does not count."""
    calls: list[int] = []
    one = checkpointer(tmp_path, save=when(lambda moment: calls.append(moment.progress.step)))
    loop = measuring({4: 0.9, 8: 0.5, 12: 0.7}, one)
    measured = loop.metrics

    def at(step: int) -> dict[str, float]:
        loop.weights[0] = np.nan if step == 8 else float(step)
        return measured(step)

    loop.metrics = at
    loop.run(12)
    assert calls == list(range(1, 13))
