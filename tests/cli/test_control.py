"""The commands that change a run, or ask it to (pin, unpin, prune, request), and that tell: explain, simulate."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import threading
from pathlib import Path
from typing import Any, NoReturn

import pytest
from typer.testing import CliRunner, Result

from ckpt_callbacks import Run, every_steps, keep_last, keep_when, on_best, when
from ckpt_callbacks.cli import app
from ckpt_callbacks.run import human_size
from ckpt_callbacks.store import LocalStore
from ckpt_callbacks.store.files import disk
from tests.loop import Loop, checkpointer


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Snapshots of steps 8 (the best), 12 and 14, the current directory around the run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    Loop(checkpointer(tmp_path)).run(14)
    return Run("run")


def ckpt(*arguments: str, exit_code: int = 0) -> Result:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == exit_code, result.output
    return result


def ckpt_json(*arguments: str, exit_code: int = 0) -> Any:
    return json.loads(ckpt(*arguments, "--json", exit_code=exit_code).stdout)


def steps(run: Run) -> list[int]:
    return [snapshot.step for snapshot in run.snapshots()]


def test_pin_and_unpin(run: Run) -> None:
    """By any reference, with a note; what a pin holds no rule drops."""
    assert ckpt("pin", "run@12", "--note", "before the merge").stdout == f"pinned {run.get(12).id}\n"
    assert run.pins() == {run.get(12).id: "before the merge"}
    assert list(ckpt_json("prune", "run", "--keep", "keep_last(1)", "--dry-run")["drop"]) == [run.get(8).id]
    assert ckpt_json("unpin", "run@12")["pinned"] is False
    assert run.pins() == {}


def test_prune_does_not_delete_for_the_sake_of_what_is_damaged(run: Run) -> None:
    """The newest that would stay is read first: a good one always remains."""
    (model,) = run.get(14).path.glob("model*.safetensors")
    model.write_bytes(model.read_bytes()[:-1] + b"!")
    refused = ckpt("prune", "run", "--keep", "keep_last(1)", exit_code=2)
    assert "Nothing was pruned" in refused.stderr
    assert steps(run) == [8, 12, 14]
    ckpt("repair", "run")
    ckpt("prune", "run", "--keep", "keep_last(1)")
    assert steps(run) == [12]


@pytest.mark.parametrize(
    ("refused", "what"), [("write", "is pinned, but without its note"), ("open_update", "is not pinned")]
)
def test_a_pin_on_a_full_disk_says_what_is_true(
    run: Run, monkeypatch: pytest.MonkeyPatch, refused: str, what: str
) -> None:
    """That the file is there is what counts, not what could be written into it."""

    def full(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(disk, refused, full)
    said = ckpt("pin", "run@12", "--note", "x", exit_code=2).output
    assert f"{run.get(12).id} {what}" in said
    assert run.get(12).pinned is (what != "is not pinned")


def test_prune_says_first_and_does_then(run: Run) -> None:
    """By the run's own rules, or others."""
    assert ckpt_json("prune", "run", "--dry-run")["drop"] == {}
    text = ckpt("prune", "run", "--keep", "keep_last(1)", "--dry-run").stdout
    assert max(map(len, text.splitlines())) <= 80
    assert "no rule keeps it" in text
    assert "would drop 2 snapshots" in text
    assert steps(run) == [8, 12, 14]
    document = ckpt_json("prune", "run", "--keep", "keep_last(2), weights_after(1)")
    assert [len(document[name]) for name in ("keep", "drop", "demote")] == [2, 1, 1]
    assert [(one.step, one.content) for one in run.snapshots()] == [(12, "weights"), (14, "full")]
    assert document["freed"] > 0


def test_prune_refuses_what_it_can_not_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A function of the user's is in their program only; a wrong expression is no rule."""
    monkeypatch.chdir(tmp_path)
    Loop(checkpointer(tmp_path, keep=[keep_last(2), keep_when(lambda record: False)])).run(4)
    for arguments in (["prune", "run"], ["prune", "run", "--keep", "keep_everything()"]):
        error = ckpt(*arguments, exit_code=2).stderr
        assert error.startswith("ckpt: ")
        assert error.count("\n") == 1


def test_prune_leaves_a_live_run_alone(run: Run) -> None:
    """Its own process tidies up."""
    held = multiprocessing.get_context("forkserver").Process(target=_hold, args=(str(run.path),))
    held.start()
    try:
        while not (run.path / "held").exists():
            held.join(0.05)
        assert "is in use by process" in ckpt("prune", "run", exit_code=2).stderr
    finally:
        held.kill()
        held.join()


def _hold(path: str) -> None:
    with LocalStore(path).lock():
        Path(path, "held").touch()
        threading.Event().wait()


def test_explain_says_in_words_what_the_rules_are_and_do(run: Run) -> None:
    """When it saves, what it keeps, and what that means for each snapshot."""
    text = ckpt("explain", "run").stdout
    for part in (
        *("every 2 optimizer steps", "when loss is the best so far (min)", "the newest 2", "the best by loss (min)"),
        *("pins, the newest", "best loss (rank 1 of 1)"),
    ):
        assert part in text
    assert max(map(len, text.splitlines())) <= 80
    document = ckpt_json("explain", "run")
    assert document["policy"]["keep"] == ["keep_last(2)", "keep_best(1, 'loss')"]
    assert list(document["keep"]) == [one.id for one in run.snapshots()]


def test_explain_gives_each_part_of_the_default_policy_a_line(tmp_path: Path) -> None:
    """Whole, whatever signs are in its words."""
    Loop(checkpointer(tmp_path, save=None)).run(4)
    saves = ckpt_json("explain", str(tmp_path / "run"))["saves"]
    assert len(saves) == 5
    assert all(text.count("(") == text.count(")") for text in saves)
    assert "when an exception ends training: the newest state that is held in memory" in saves


def test_explain_names_what_it_can_not_judge(tmp_path: Path) -> None:
    """The user's own functions, by their names."""

    def late(moment: object) -> bool:
        return True

    Loop(checkpointer(tmp_path, save=every_steps(2) | when(late), keep=keep_when(late))).run(4)
    document = ckpt_json("explain", str(tmp_path / "run"))
    assert (document["saves"], document["keeps"]) == (
        ["every 2 optimizer steps", "when late is true, which only the run's program can tell"],
        ["keep_when(late), which only the run's program has"],
    )
    listed = ckpt_json("ls", str(tmp_path / "run"))["snapshots"]
    why = ["keep_when(late)"]
    assert [one["kept_by"] for one in listed] == [why, why, why, ["newest full: needed to resume", *why]]
    assert document["keep"] == {one["id"]: one["kept_by"] for one in listed}
    assert "when late is true" in ckpt("explain", str(tmp_path / "run")).stdout


def test_explain_has_words_for_what_stands_beside_a_lambda(tmp_path: Path) -> None:
    """Only the function itself can't be told."""
    Loop(checkpointer(tmp_path, save=(every_steps(2) & when(lambda moment: True)) | on_best())).run(4)
    assert ckpt_json("explain", str(tmp_path / "run"))["saves"] == [
        "every 2 optimizer steps, but only when <lambda> is true, which only the run's program can tell",
        "when loss is the best so far (min)",
    ]


def test_what_training_went_back_from_is_said_to_be_abandoned(run: Run) -> None:
    """By all that list the run: the rules keep it for the same reasons, and it is better than the best."""
    left = {run.get(12).id, run.get(14).id}
    again = Loop(checkpointer(run.path.parent, resume=str(run.path / "snapshots" / run.get(8).id)))
    again.metrics = lambda step: {"loss": 10}
    again.run(12)
    for command in ("ls", "explain"):
        text = " ".join(ckpt(command, "run").stdout.split())
        assert text.count("abandoned") == len(left)
    listed = ckpt_json("ls", "run")["snapshots"]
    assert {one["id"] for one in listed if one["abandoned"]} == left
    for command in (["explain"], ["prune", "--dry-run"]):
        assert set(ckpt_json(command[0], "run", *command[1:])["abandoned"]) == left
    for one in run.snapshots():
        assert ckpt_json("show", str(one.path))["abandoned"] == (one.id in left)
        assert ("never the best" in ckpt("show", str(one.path)).stdout) == (one.id in left)


def test_ls_tells_why_snapshots_are_gone(run: Run) -> None:
    """If it is asked to, by the journal."""
    assert "dropped" not in ckpt_json("ls", "run")
    gone = ckpt_json("ls", "run", "--dropped")["dropped"]
    assert gone == run.dropped()
    assert [int(id.partition("-")[0]) for id in gone] == [2, 4, 6, 10]
    assert set(gone.values()) == {"no rule keeps it: keep_last(2), keep_best(1, 'loss')"}
    assert all(id in ckpt("ls", "run", "--dropped").stdout for id in gone)


def test_what_only_the_program_can_judge_is_said_and_never_dropped(tmp_path: Path) -> None:
    """What its function kept is in the journal; of what it did not keep nobody knows whether it would now. The rules
    that can be read are applied, and what does not hang on the function is done."""

    def early(record: object) -> bool:
        return record.step < 4  # type: ignore[attr-defined]

    Loop(checkpointer(tmp_path, keep=[keep_last(2), keep_when(early)], save=every_steps(2))).run(6)
    run = Run(tmp_path / "run")
    run.pin(4, "before the merge")
    Loop(checkpointer(tmp_path, keep=[keep_last(2), keep_when(early)], save=every_steps(2))).run(10)
    run.unpin(4)
    said = ckpt_json("explain", str(run.path))
    assert {run.get(id).step: why for id, why in said["keep"].items()} == {
        2: ["keep_when(early)"],
        4: ["keep_when(early) may keep it: only the run's program can tell (it noted last: pinned: before the merge)"],
        8: ["keep_last(2)"],
        10: ["newest full: needed to resume", "keep_last(2)"],
    }
    assert said["drop"] == {}
    assert ckpt_json("prune", str(run.path), "--dry-run")["keep"] == said["keep"]
    assert "without --keep nothing is pruned" in ckpt("prune", str(run.path), "--dry-run").stdout
    ckpt("prune", str(run.path), exit_code=2)
    assert steps(run) == [2, 4, 8, 10]


def test_a_pin_is_shown_with_its_note(run: Run) -> None:
    """By whatever lists the run; made with a file, it needs none."""
    run.pin(12, "before the merge")
    (run.path / "pins" / run.get(8).id).touch()
    for command in ("ls", "explain"):
        text = " ".join(ckpt(command, "run").stdout.split())
        assert "pinned: before the merge" in text
        assert "pinned, best loss" in text
    assert ckpt_json("explain", "run")["keep"][run.get(12).id][0] == "pinned: before the merge"


def test_a_request_nobody_hears_is_withdrawn(run: Run) -> None:
    """So that it does not stop a run of tomorrow."""
    result = ckpt("request", "run", "--timeout", "0.3", exit_code=1)
    assert "no live process is known" in result.stderr
    assert "no answer in 0.3 s; the request is withdrawn" in result.stderr
    assert ckpt_json("request", "run", "--timeout", "0.3", exit_code=1)["error"] == "no answer"
    assert list((run.path / "requests").iterdir()) == []


def test_a_request_is_heard_by_who_trains(tmp_path: Path) -> None:
    """The command waits until the snapshot is durable, and names it."""
    one = checkpointer(tmp_path, save=every_steps(100), keep=keep_when(lambda record: record.note is not None))
    results: list[Result] = []
    arguments = ["request", str(tmp_path / "run"), "--note", "now", "--timeout", "30"]
    asking = threading.Thread(target=lambda: results.append(CliRunner().invoke(app, arguments)))
    loop = Loop(one)

    def loss(step: int) -> float:
        if step == 2:
            asking.start()
        if asking.is_alive():
            threading.Event().wait(0.05)
        return 1.0

    loop.loss = loss
    loop.run(400)
    asking.join()
    (saved,) = [one for one in Run(tmp_path / "run").snapshots() if one.note]
    assert results[0].exit_code == 0, results[0].output
    assert f"saved {saved.id}" in results[0].output
    assert saved.note == "now"


def test_who_does_not_wait_asks_the_next_one_to_train(run: Run) -> None:
    """The request stays until somebody trains."""
    ckpt("request", "run", "--timeout", "0")
    Loop(checkpointer(run.path.parent, save=every_steps(100), background=False)).run(15)
    assert list((run.path / "requests").iterdir()) == []
    assert run.latest.reasons == ("manual",)


SIMULATE = ["simulate", "--steps", "100000", "--step-time", "0.5s", "--size", "3 GB", "--save", "every_steps(1000)"]


def test_simulate_shows_what_a_policy_would_do() -> None:
    """How many saves, what is kept, how many bytes: as a table, a picture, and JSON."""
    text = ckpt(*SIMULATE, "--keep", "keep_last(3), keep_log_spaced(10), weights_after(2)").stdout
    assert "100 saves in 50000s of training; at the end" in text
    assert set("▁▂▃▄▅▆▇█") & set(text)
    assert "○" in text
    document = ckpt_json(*SIMULATE, "--keep", "keep_last(3), keep_best(1, 'val_loss')")
    assert len(document["saves"]) == 100
    assert document["written"] == 300 * 10**9
    assert {one["step"] for one in document["kept"]} >= {98000, 99000, 100000}
    assert any("best val_loss" in why for one in document["kept"] for why in one["why"])


def test_simulate_tells_what_the_disk_holds_over_time() -> None:
    """At ten steps, as its own JSON has it; what is not listed is counted."""
    arguments = [*SIMULATE, "--keep", "keep_last(40), weights_after(4)"]
    text, document = ckpt(*arguments).stdout, ckpt_json(*arguments)
    rows = [line.split() for line in text.partition("at step")[2].splitlines()[1:11]]
    assert [row[0] for row in rows] == [f"{step:,}" for step in range(10_000, 100_001, 10_000)]
    assert rows[-1][1:3] == ["13:53:20", "40"]
    by_step = {save["step"]: (str(save["kept"]), human_size(save["bytes"])) for save in document["saves"]}
    assert [(row[2], " ".join(row[3:])) for row in rows] == [by_step[step] for step in range(10_000, 100_001, 10_000)]
    assert "and 10 earlier ones that are kept, which --json lists" in text
    assert "earlier ones" not in ckpt(*SIMULATE, "--keep", "keep_last(30)").stdout


def test_simulate_of_a_short_run_that_saves_late() -> None:
    """No row twice, and nothing before the first save."""
    text = ckpt("simulate", "--steps", "4", "--save", "every_steps(3)", "--size", "1 GB").stdout
    rows = [line.split() for line in text.partition("at step")[2].splitlines()[1:5]]
    assert [(row[0], row[2]) for row in rows] == [("1", "0"), ("2", "0"), ("3", "1"), ("4", "1")]


def test_simulate_with_the_defaults() -> None:
    """What `Checkpointer(directory, monitor="val_loss")` would do."""
    document = ckpt_json("simulate", "--steps", "5000", "--monitor", "val_loss")
    assert [one["step"] for one in document["saves"]] == [1000, 2000, 3000, 4000, 5000]
    assert 2 <= len(document["kept"]) <= 3


@pytest.mark.parametrize(
    "wrong", [["--save", "every(x)"], ["--keep", "nothing"], ["--size", "much"], ["--step-time", "never"]]
)
def test_simulate_refuses_what_it_does_not_understand(wrong: list[str]) -> None:
    """In one line, with what was expected."""
    assert "expected" in ckpt(*SIMULATE[:3], *wrong, exit_code=2).stderr


@pytest.mark.parametrize(
    ("wrong", "remedy"),
    [
        (["--save", "on_best()"], "--monitor val_loss"),
        (["--keep", "keep_best(2)"], "--monitor val_loss"),
        (["--save", "when(lambda m: True)"], "function of your program's"),
        (["--keep", "keep_when(late)"], "function of your program's"),
    ],
)
def test_simulate_says_what_it_lacks(wrong: list[str], remedy: str) -> None:
    """The remedy is one of the command's own."""
    assert remedy in ckpt(*SIMULATE[:3], *wrong, exit_code=2).stderr


def test_repair_tells_what_it_did(run: Run) -> None:
    """Each snapshot that was set aside, with its new place; nothing, if there was nothing to do."""
    bad = run.get(12)
    (bad.path / "state.json").write_text("[]")
    text = ckpt("repair", "run").stdout
    assert f"set {bad.id} aside" in text
    assert str(Path("damaged") / bad.id) in text
    assert ckpt("repair", "run").stdout == "nothing to repair\n"
    assert ckpt_json("repair", "run")["aside"] == {}


def test_repair_tells_of_links_and_of_what_it_left(run: Run) -> None:
    """A link that was made is something that was done; what is wrong still makes the exit code 1."""
    latest = run.latest
    assert latest is not None
    (run.path / "latest").unlink(missing_ok=True)
    (run.path / "run.json").unlink()
    told = ckpt("repair", "run").stdout
    assert f"latest points at {latest.id} now\n" in told
    assert "run.json is written anew\n" in told
    path = latest.path / "manifest.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    assert f"left as it is: {latest.id}: manifest.json is of format 2" in ckpt("repair", "run", exit_code=1).stdout
    path.write_text(path.read_text().replace('"format": 2', '"format": 1'))
    assert ckpt_json("verify", "run")["notes"] == []
