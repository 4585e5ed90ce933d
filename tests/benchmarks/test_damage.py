"""`make damage`: a slice of it, so that the command stays true."""

from __future__ import annotations

import pytest

from benchmarks import damage


def test_a_slice(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Each file, at its first and last byte; the counts are printed."""
    monkeypatch.setattr("sys.argv", ["damage", "--stride", "100000", "--lanes", "1"])
    assert damage.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= 5 + 7 + 1
    assert all("removed" in line for line in lines)
