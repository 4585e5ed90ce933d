"""The journal: one line an event, and no harm when a line is torn or the disk is full."""

from __future__ import annotations

import errno
import math
import os
import tracemalloc
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ckpt_callbacks.store import Journal
from ckpt_callbacks.store import journal as journals
from ckpt_callbacks.store.files import disk


def test_events_come_back_in_order_with_their_time(tmp_path: Path) -> None:
    """Each has a UTC time, its name and its fields."""
    journal = Journal(tmp_path / "events.jsonl")
    journal.append("saved", id="a", reasons=["every_epochs(1)"])
    journal.append("dropped", id="b", loss=math.nan)
    saved, dropped = journal
    assert saved["event"] == "saved"
    assert saved["reasons"] == ["every_epochs(1)"]
    assert dropped["loss"] == "nan"
    assert datetime.fromisoformat(saved["time"]).utcoffset() == datetime.now(UTC).utcoffset()


def test_no_journal_is_an_empty_one(tmp_path: Path) -> None:
    """A run that has no file yet has no events."""
    assert list(Journal(tmp_path / "events.jsonl")) == []


@pytest.mark.parametrize("torn", range(2, 60, 7))
def test_a_torn_line_costs_only_itself(tmp_path: Path, torn: int) -> None:
    """A crash in the middle of a line neither hides older events nor spoils the next one."""
    journal = Journal(tmp_path / "events.jsonl")
    journal.append("saved", id="a")
    journal.append("saved", id="b")
    os.truncate(journal.path, journal.path.stat().st_size - torn)
    assert [event["id"] for event in journal] == ["a"]
    journal.append("saved", id="c")
    assert [event["id"] for event in journal] == ["a", "c"]


def test_a_line_that_would_eat_memory_is_none_of_ours(tmp_path: Path) -> None:
    """One that is too long, too deep, or makes much of a few bytes; the others are read all the same."""
    journal = Journal(tmp_path / "events.jsonl")
    long, deep = b'{"why": "' + b"x" * journals.MAX_LINE + b'"}\n', b"[" * 100_000 + b"\n"
    journal.path.write_bytes(b'{"event":"a"}\n' + long + deep + b'{"why": [' + b"[]," * 300_000 + b"1]}\n")
    journal.append("kept", id="b", why=[f"keep_{number}" for number in range(100)])
    tracemalloc.start()
    assert [entry["event"] for entry in journal] == ["a", "kept"]
    assert tracemalloc.get_traced_memory()[1] < 8 << 20  # the file has 2, and the list of lists 24
    tracemalloc.stop()


def test_a_full_disk_is_a_warning_not_a_failed_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The journal is for people; it is said once that it can't be written."""

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    journal = Journal(tmp_path / "events.jsonl")
    monkeypatch.setattr(disk, "write", full)
    journal.append("saved", id="a")
    journal.append("saved", id="b")
    assert [record.message for record in caplog.records if "No space left" in record.message] == [
        caplog.records[0].message
    ]


def test_hostile_lines_cost_only_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nested without end; and of a journal without end the last part is read."""
    journal = Journal(tmp_path / "events.jsonl")
    journal.append("saved", id="a")
    with journal.path.open("ab") as file:
        file.write(b"[" * 200_000 + b"\n")
    journal.append("saved", id="b")
    assert [event["id"] for event in journal] == ["a", "b"]
    monkeypatch.setattr(journals, "MAX_BYTES", 1000)
    assert [event["id"] for event in journal] == ["b"]
    os.truncate(journal.path, 1 << 40)
    journal.append("saved", id="c")
    assert [event["id"] for event in journal] == ["c"]
