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
    """Also in the name of the digest, and in what is only space between members."""
    one = identity(tmp_path)
    one.write(None)
    whole = one.path.read_bytes()
    for place, byte in enumerate(whole):
        for other in {byte ^ 1 << bit for bit in range(8)} | {*b"\t\r\n "} - {byte}:
            one.path.write_bytes(whole[:place] + bytes([other]) + whole[place + 1 :])
            with pytest.raises(CorruptSnapshotError):
                one.read()


def test_every_cut_and_addition_is_found(tmp_path: Path) -> None:
    """The last line feed counts as well."""
    one = identity(tmp_path)
    one.write(None)
    whole = one.path.read_bytes()
    for changed in [*(whole[:length] for length in range(len(whole))), whole + b"\n", whole + b" ", b"\n" + whole]:
        one.path.write_bytes(changed)
        with pytest.raises(CorruptSnapshotError):
            one.read()


def test_an_older_one_has_no_digest(tmp_path: Path) -> None:
    """And is read as it is; with any further member, or another end, it is none."""
    (tmp_path / "run.json").write_text('{"format": 1, "run_id": "b", "created": "2026-01-01T00:00:00+00:00"}\n')
    assert identity(tmp_path).read()["run_id"] == "b"
    for other, why in {
        '{"format": 1, "run_id": "b", "created": "", "digesu": ""}\n': "without a digest",
        '{"format": 1, "run_id": "b"}\n': "without a digest",
        '{"format": 1, "run_id": "b", "created": ""}': "its text",
        '{"weights": {}}\n': "found None",
        '{"format": 0, "run_id": "b", "created": ""}\n': "found 0",
    }.items():
        (tmp_path / "run.json").write_text(other)
        with pytest.raises(CorruptSnapshotError, match=why):
            identity(tmp_path).read()


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
