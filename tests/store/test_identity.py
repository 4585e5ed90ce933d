"""Which run a directory is: a damaged ``run.json`` says nothing, and is written anew from what the snapshots say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ckpt_callbacks import Run
from ckpt_callbacks.errors import CorruptSnapshotError, StoreError
from ckpt_callbacks.store.identity import Identity
from ckpt_callbacks.store.writing import DurableFiles
from tests.loop import Loop, checkpointer


def identity(tmp_path: Path) -> Identity:
    return Identity(tmp_path, DurableFiles("none"))


def test_it_is_what_was_written(tmp_path: Path) -> None:
    """With an id that is given, or a new one; nothing where there is no file."""
    one = identity(tmp_path)
    assert one.read() == {}
    one.write("a" * 32)
    assert one.read()["run_id"] == "a" * 32
    one.write(None)
    assert len(one.read()["run_id"]) == 32


def test_every_flipped_byte_is_found(tmp_path: Path) -> None:
    """But in the name of the digest, without which all else still is what it was."""
    one = identity(tmp_path)
    one.write(None)
    whole, facts = one.path.read_bytes(), one.read()
    for place in range(len(whole)):
        one.path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            found = one.read()
        except StoreError:
            continue
        assert {key: found[key] for key in ("format", "run_id", "created")} == {
            key: facts[key] for key in ("format", "run_id", "created")
        }


def test_an_older_one_has_no_digest(tmp_path: Path) -> None:
    """And is read as it is."""
    (tmp_path / "run.json").write_text('{"format": 1, "run_id": "b", "created": "2026-01-01T00:00:00+00:00"}')
    assert identity(tmp_path).read()["run_id"] == "b"


def test_a_newer_format_is_no_damage(tmp_path: Path) -> None:
    """It must not be overwritten."""
    (tmp_path / "run.json").write_text('{"format": 2}')
    with pytest.raises(StoreError, match="Install a newer") as caught:
        identity(tmp_path).read()
    assert not isinstance(caught.value, CorruptSnapshotError)


@pytest.mark.parametrize("mended_by", ["training", "repair"])
def test_a_damaged_one_costs_no_snapshot(tmp_path: Path, caplog: pytest.LogCaptureFixture, mended_by: str) -> None:
    """It is named, and the run goes on as the one that its snapshots say."""
    Loop(checkpointer(tmp_path)).run(6)
    run = Run(tmp_path / "run")
    path, facts = run.path / "run.json", json.loads((run.path / "run.json").read_text())
    other = "0" if facts["run_id"][0] != "0" else "1"
    path.write_text(json.dumps(facts | {"run_id": other + facts["run_id"][1:]}))
    assert "run.json" in str(run.verify().problems[0])
    assert run.latest is not None
    if mended_by == "repair":
        run.repair()
    one = checkpointer(tmp_path)
    Loop(one).run(8)
    assert one.resumed is not None
    assert one.resumed.step == 6
    assert "run.json is damaged" in caplog.text
    assert json.loads(path.read_text())["run_id"] == facts["run_id"]
    assert run.verify().ok
