"""`make faults`: a slice of it, so that the command stays true."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import faults


def test_a_slice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Every 100th call fails, and each reader looks twice; the counts are printed."""
    monkeypatch.setattr("sys.argv", ["faults", "--stride", "100", "--reads", "2", "--directory", str(tmp_path)])
    assert faults.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert int(lines[0].split()[-1]) >= 2 * 2 * len(faults.ERRORS)
    assert sum(int(line.split()[-1]) for line in lines[1:]) == 2 * 6
