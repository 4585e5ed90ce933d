"""How often processes died while they loaded a snapshot."""

from __future__ import annotations

from pathlib import Path

import pytest

from ckpt_callbacks.store import Attempts


def test_deaths_of_one_snapshot_are_counted(tmp_path: Path) -> None:
    """As long as nobody lives, and it is the same one."""
    assert Attempts(tmp_path / "a").last() == (None, 0)
    for deaths in (1, 2, 3):
        Attempts(tmp_path / "a").begin("x")
        assert Attempts(tmp_path / "a").last() == ("x", deaths)
    Attempts(tmp_path / "a").begin("y")
    assert Attempts(tmp_path / "a").last() == ("y", 1)
    Attempts(tmp_path / "a").over()
    assert Attempts(tmp_path / "a").last() == (None, 0)


@pytest.mark.parametrize("content", [b"", b"[]", b'{"id": 1}', b'{"id": "x", "deaths": "many"}', b"\xff"])
def test_a_torn_file_counts_nothing(tmp_path: Path, content: bytes) -> None:
    """It was written as a process died."""
    (tmp_path / "a").write_bytes(content)
    assert Attempts(tmp_path / "a").last() == (None, 0)


def test_a_place_that_can_not_be_written_stands_in_nobodys_way(tmp_path: Path) -> None:
    """The resume matters more than the count."""
    one = Attempts(tmp_path / "absent" / "a")
    one.begin("x")
    one.over()
    assert one.last() == (None, 0)
