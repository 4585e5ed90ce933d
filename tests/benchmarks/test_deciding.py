"""The measurement of deciding runs, and looks at what it says."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks import deciding
from ckpt_callbacks import Run


def test_there_is_a_line_for_each_policy(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With a time for each of the three questions."""
    monkeypatch.setattr(sys, "argv", ["deciding", "--snapshots", "30", "--saves", "20", "--listed", "3"])
    assert deciding.main() == 0
    _, *lines, last = capsys.readouterr().out.splitlines()
    assert len(lines) == len(deciding.POLICIES)
    assert all(float(time) >= 0 for line in lines for time in line.split()[-3:])
    assert last.startswith("list 3 snapshots: ")


def test_what_is_listed_is_there(tmp_path: Path) -> None:
    """As many as it says."""
    deciding.listing(tmp_path, 4)
    assert len(Run(tmp_path / "run").snapshots()) == 4
