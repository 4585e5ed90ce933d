"""How often processes died while they loaded a snapshot."""

from __future__ import annotations

from pathlib import Path

import pytest

from ckpt_callbacks.store import Attempts
from ckpt_callbacks.store.files import disk
from ckpt_callbacks.store.writing import DurableFiles


def attempts(folder: Path) -> Attempts:
    return Attempts(folder / "a", folder / "b", DurableFiles("none"))


def test_deaths_of_one_snapshot_are_counted(tmp_path: Path) -> None:
    """As long as nobody lives, and it is the same one."""
    assert attempts(tmp_path).last() == (None, 0)
    for deaths in (1, 2, 3):
        attempts(tmp_path).begin("x")
        assert attempts(tmp_path).last() == ("x", deaths)
    attempts(tmp_path).begin("y")
    assert attempts(tmp_path).last() == ("y", 1)
    attempts(tmp_path).over()
    assert attempts(tmp_path).last() == (None, 0)


def test_a_death_amid_the_users_code_is_none_of_the_snapshots_doing(tmp_path: Path) -> None:
    """Those of before are remembered, and it counts again once the state is put back."""
    for _ in range(5):
        one = attempts(tmp_path)
        one.begin("x")
        one.pause()
        assert one.last() == ("x", 0)
    one.begin("x")
    two = attempts(tmp_path)
    two.begin("x")
    two.pause()
    assert two.last() == ("x", 1)
    with two.loading():
        assert two.last() == ("x", 2)
    assert two.last() == ("x", 1)
    two.over()
    with two.loading():
        assert two.last() == (None, 0)


def test_the_count_is_on_the_disk_before_anything_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot may take the whole machine down: file and name are durable; what a pause takes back need not be."""
    synced = []
    monkeypatch.setattr(disk, "fsync", lambda descriptor: synced.append("file"))
    monkeypatch.setattr(disk, "fsync_directory", lambda path: synced.append(path.name))
    one = Attempts(tmp_path / "a", tmp_path / "b", DurableFiles("full"))
    one.begin("x")
    assert synced == ["file", tmp_path.name]
    one.pause()
    assert synced == ["file", tmp_path.name]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("content", [b"", b"[]", b'{"id": 1}', b'{"id": "x", "deaths": "many"}', b"\xff"])
def test_a_torn_file_counts_nothing(tmp_path: Path, content: bytes) -> None:
    """It was written as a process died."""
    (tmp_path / "a").write_bytes(content)
    assert attempts(tmp_path).last() == (None, 0)


def test_a_place_that_can_not_be_written_stands_in_nobodys_way(tmp_path: Path) -> None:
    """The resume matters more than the count."""
    one = attempts(tmp_path / "absent")
    one.begin("x")
    one.over()
    assert one.last() == (None, 0)


def test_who_was_stepped_over_stays_so(tmp_path: Path) -> None:
    """Until somebody forgives it, whatever else processes die of; an empty list needs no file."""
    one = attempts(tmp_path)
    for _ in range(3):
        one.begin("x")
    assert one.spared() == {"x": 3}
    one.spare(one.spared())
    one.begin("y")
    assert one.spared() == {"x": 3}
    assert not one.forgive("y")
    assert one.forgive("x")
    assert one.spared() == {}
    assert one.last() == ("y", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("content", [b"", b"[]", b'{"x": "many"}', b"\xff", b"[" * 70_000])
def test_a_torn_list_spares_none(tmp_path: Path, content: bytes) -> None:
    """It was written as a process died; the one of just now is known all the same."""
    (tmp_path / "b").write_bytes(content)
    assert attempts(tmp_path).spared() == {}
