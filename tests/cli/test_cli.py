"""The command line: what people read, what programs read, and how it fails."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save
from typer.testing import CliRunner, Result

from ckpt_callbacks.cli import app
from ckpt_callbacks.engine.moment import Progress
from ckpt_callbacks.store import LocalStore, Manifest

MONITOR = {"metric": "val_loss", "mode": "min", "min_delta": 0.0}


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalStore:
    """A run `runs/digits` with three snapshots, the current directory around it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    store = LocalStore("runs/digits")
    for step, loss in ((1200, 0.51234), (2400, 0.25), (3600, math.nan)):
        draft = Manifest.draft(
            progress=Progress(step=step, epoch=step // 1200, batch=3, batches=step),
            metrics={"val_loss": loss, "train_loss_epoch": 0.125},
            reasons=("every_epochs(1)", "on_best('val_loss')"),
            monitors=[MONITOR],
            framework="pytorch_lightning",
            versions={"torch": "2.13.0"},
            provenance={"command": ["python", "train.py", "--lr", "0.1"], "git": {"commit": "c0ffee"}},
            note="by [hand]",
        )
        store.commit(
            draft,
            {
                "model.safetensors": [save({"layer.weight": np.zeros((20, 30), np.float32), "bias": np.zeros(3)})],
                "state.json": [b'{"weights": {}}'],
            },
        )
    return store


def ckpt(*arguments: str, exit_code: int = 0) -> Result:
    """Run the command line."""
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == exit_code, result.output
    return result


def ckpt_json(*arguments: str, exit_code: int = 0) -> Any:
    """Run the command line with --json; standard output must be one document."""
    return json.loads(ckpt(*arguments, "--json", exit_code=exit_code).stdout, parse_constant=pytest.fail)


def test_ls_lists_what_a_person_wants_to_know(store: LocalStore) -> None:
    """Ids to copy, metrics, sizes, what is best, latest and pinned - within 80 columns."""
    first, second, third = (manifest.id for manifest in store.manifests())
    store.pin(first)
    text = ckpt("ls", "runs/digits").stdout
    assert max(map(len, text.splitlines())) <= 80
    rows = {line.split()[0]: line for line in text.splitlines() if line[:1].isdigit()}
    assert list(rows) == [first, second, third]
    assert "pinned" in rows[first]
    assert "0.5123" in rows[first]
    assert "best" in rows[second]
    assert "latest" in rows[third]
    assert "nan" in rows[third]
    assert "3 snapshots" in text
    assert "on_best('val_loss')" in text
    assert "kept: keep_last(2)" in rows[second] + text.partition(second)[2]


def test_ls_is_readable_for_programs(store: LocalStore) -> None:
    """The names are part of the contract; non-finite numbers are strings."""
    document = ckpt_json("ls", "runs/digits")
    assert set(document) == {"run", "run_id", "monitors", "in_use_by", "snapshots", "unreadable"}
    assert document["in_use_by"] is None
    last = document["snapshots"][-1]
    assert set(last) == {
        *("id", "sequence", "step", "epoch", "batch", "batches", "metrics", "reasons", "content", "created", "elapsed"),
        *("size", "note", "parent", "pinned", "best", "latest", "path", "unhealthy", "kept_by", "abandoned"),
    }
    assert last["metrics"]["val_loss"] == "nan"
    assert [snapshot["best"] for snapshot in document["snapshots"]] == [False, True, False]
    assert [snapshot["latest"] for snapshot in document["snapshots"]] == [False, False, True]


def test_ls_says_who_uses_the_run_and_what_it_can_not_list(store: LocalStore) -> None:
    """A live run and a damaged snapshot are both worth a line."""
    bad = store.manifests()[-1].id
    (store.path(bad) / "manifest.json").write_text("{}")
    with store.lock():
        text = ckpt("ls", "runs/digits").stdout
        assert ckpt_json("ls", "runs/digits")["in_use_by"]["pid"] == os.getpid()
    assert f"in use by process {os.getpid()}" in text
    assert f"{bad} can't be listed" in text
    assert list(ckpt_json("ls", "runs/digits")["unreadable"]) == [bad]


def test_ls_of_an_empty_run(tmp_path: Path) -> None:
    """It is a run all the same."""
    LocalStore(tmp_path).open()
    assert "0 snapshots" in ckpt("ls", str(tmp_path)).stdout
    assert ckpt_json("ls", str(tmp_path))["snapshots"] == []


def test_show_tells_all_of_one_snapshot(store: LocalStore) -> None:
    """Progress, metrics, versions, where it comes from, files and tensors, within 80 columns."""
    text = ckpt("show", "runs/digits@best").stdout
    assert max(map(len, text.splitlines())) <= 80
    for fact in ("step 2400", "val_loss 0.25", "torch 2.13.0", "python train.py --lr 0.1", "c0ffee", "by [hand]"):
        assert fact in text
    for fact in ("model.safetensors", "layer.weight", "20 x 30", "1 F64, 1 F32", "603 elements"):
        assert fact in text


def test_show_is_readable_for_programs(store: LocalStore) -> None:
    """With every file's digest and every tensor's shape."""
    document = ckpt_json("show", "runs/digits@1200")
    assert document["step"] == 1200
    assert document["files"]["model.safetensors"]["digest"].startswith("xxh3-128:")
    shapes = {tensor["name"]: tensor["shape"] for tensor in document["tensors"]}
    assert shapes == {"layer.weight": [20, 30], "bias": [3]}
    assert document["parameters"] == 603
    assert document["provenance"]["git"] == {"commit": "c0ffee"}


def test_show_takes_a_path_and_a_copy(store: LocalStore, tmp_path: Path) -> None:
    """Of the snapshot in its run, or of one that was copied elsewhere."""
    path = store.path(store.manifests()[0].id)
    assert ckpt_json("show", str(path))["id"] == path.name
    path.rename(tmp_path / "copy")
    assert not ckpt_json("show", "copy")["best"]
    assert path.name in ckpt("show", "copy").stdout


def test_verify_is_quiet_success_or_named_problems(store: LocalStore) -> None:
    """Exit code 0 or 1; a quick look compares sizes only."""
    assert "3 snapshots checked, every byte: all good" in ckpt("verify", "runs/digits").stdout
    path = store.path(store.manifests()[0].id) / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    text = ckpt("verify", "runs/digits", exit_code=1).stdout
    assert f"{path.parent.name}: model.safetensors has other bytes than were written" in text
    assert "sizes only" in ckpt("verify", "runs/digits", "--quick").stdout
    assert ckpt("verify", "runs/digits@latest").exit_code == 0
    assert ckpt("verify", str(path.parent), exit_code=1).stdout == text
    document = ckpt_json("verify", "runs/digits@1200", exit_code=1)
    assert set(document) == {"ok", "full", "checked", "problems", "strangers", "notes"}
    assert [problem["snapshot"] for problem in document["problems"]] == [path.parent.name]


@pytest.mark.parametrize("name", ["model.safetensors", "state.json", "manifest.json"])
def test_verify_names_a_lost_file(store: LocalStore, name: str) -> None:
    """Each file of a snapshot, its manifest too."""
    path = store.path(store.manifests()[0].id)
    (path / name).unlink()
    assert f"{path.name}: {name} is missing" in ckpt("verify", "runs/digits", exit_code=1).stdout


def test_verify_of_one_snapshot_with_a_broken_manifest(store: LocalStore) -> None:
    """Is a finding, not a failure to look."""
    id = store.manifests()[0].id
    (store.path(id) / "manifest.json").write_text("{")
    for target in (f"runs/digits@{id}", f"runs/digits/snapshots/{id}"):
        assert f"{id}: manifest.json" in ckpt("verify", target, exit_code=1).stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("ls", "nowhere"),
        ("show", "runs/digits@15"),
        ("show", "runs"),
        ("verify", "runs/digits@15"),
        ("ls", "nowhere", "--json"),
    ],
)
def test_an_error_is_one_line_on_standard_error(store: LocalStore, arguments: tuple[str, ...]) -> None:
    """With exit code 2, and nothing on standard output."""
    result = ckpt(*arguments, exit_code=2)
    assert result.stdout == ""
    assert result.stderr.startswith("ckpt: ")
    assert result.stderr.count("\n") == 1


def test_as_a_program(store: LocalStore) -> None:
    """A process of its own: JSON only on standard output, no framework loaded, and the module form works."""
    command = [sys.executable, "-X", "importtime", "-m", "ckpt_callbacks.cli", "ls", "runs/digits", "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert len(json.loads(done.stdout)["snapshots"]) == 3
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "ckpt_callbacks" in imported
    assert not imported & {"torch", "keras", "tensorflow", "jax", "pytorch_lightning", "lightning"}


def test_a_terminal_that_knows_only_ascii_is_answered(store: LocalStore) -> None:
    """All but a few signs."""
    command = [sys.executable, "-m", "ckpt_callbacks.cli", "ls", str(store.root)]
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=ascii_only)
    assert "snapshots" in done.stdout


def test_help_names_the_commands() -> None:
    """And each command explains its argument."""
    text = ckpt("--help").stdout
    for name in ("ls", "show", "verify"):
        assert name in text
        assert "--json" in ckpt(name, "--help").stdout


ODD_NAMES = ("ünï code", "a\nb", "٣-abc", "9" * 201, "x" * 255, "-x y", os.fsdecode(b"\xff\xfe"))


@pytest.mark.parametrize("name", ODD_NAMES)
@pytest.mark.parametrize("inside", ["manifest.json", "data"])
def test_directories_that_are_not_ours_are_left_alone(store: LocalStore, name: str, inside: str) -> None:
    """Nothing of ours has such a name: they are named once, by verify, and no command fails or moves them."""
    ckpt("repair", "runs/digits")  # which makes the links
    stranger = store.root / "snapshots" / name
    stranger.mkdir()
    (stranger / inside).write_text("{}")
    assert f"{name!a} is not a snapshot of this run" in ckpt("verify", "runs/digits").stdout.replace("\n", "")
    assert ckpt_json("verify", "runs/digits")["strangers"] == [name]
    assert ckpt("repair", "runs/digits").stdout.splitlines() == ["nothing to repair"]
    for command in ("ls", "explain", "prune"):
        assert name not in ckpt(command, "runs/digits").stdout
    store.lock().release()
    store.clean()
    assert (stranger / inside).read_text() == "{}"


def test_nothing_that_a_file_says_steers_the_terminal(store: LocalStore) -> None:
    """Notes, reasons, names of metrics: escapes are shown, not obeyed; an undecodable name of the run as well."""
    evil = "\x1b]0;title\x07\x1b[2J"
    draft = Manifest.draft(progress=Progress(step=4800), metrics={evil: 1.0}, reasons=(evil,), note=evil)
    store.commit(draft, {"model.safetensors": [save({evil: np.zeros(1)})]})
    store.pin(store.manifests()[-1].id, evil)
    odd = os.fsdecode(b"runs/\xff")
    Path("runs/digits").rename(odd)
    for command in (("ls", odd), ("show", odd), ("explain", odd), ("verify", odd), ("prune", odd), ("pin", odd)):
        said = ckpt(*command)
        assert said.output.replace("\n", "").isprintable()
    assert "\\x1b[2J" in ckpt("show", odd).stdout
    assert "\\udcff" in ckpt("ls", odd + "x", exit_code=2).output
