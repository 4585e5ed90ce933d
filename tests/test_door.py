"""The door: a regular file is opened, whatever else lies in its place is told by what it is."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import pytest

import ckpt_callbacks
from ckpt_callbacks import door
from ckpt_callbacks.store.remedies import is_damage, remedy

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")

FLAGS = {
    "to read": os.O_RDONLY,
    "to append": os.O_RDWR | os.O_CREAT | os.O_APPEND,
    "to update": os.O_RDWR | os.O_CREAT,
}


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Path]:
    """One of each kind, by what it is called."""
    (tmp_path / "file").write_bytes(b"PRECIOUS")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "nowhere").symlink_to("nothing")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    links = {name: tmp_path / name for name in ("link", "nowhere", "loop")}
    return {
        **links,
        "a directory": tmp_path / "folder",
        "a named pipe": tmp_path / "pipe",
        "a device": Path("/dev/null"),
    }


@pytest.mark.parametrize("flags", FLAGS.values(), ids=FLAGS)
def test_what_is_no_file_is_refused(places: dict[str, Path], tmp_path: Path, flags: int) -> None:
    """At once, without a trace, and it counts as damage with a remedy of its own."""
    for kind, path in places.items():
        with pytest.raises(door.IrregularError) as caught:
            door.open_regular(path, flags)
        called = kind if kind.startswith("a ") else "a symbolic link"
        assert caught.value.strerror == f"{called} lies in its place"
        assert caught.value.filename == str(path)
        assert is_damage(caught.value)
        assert remedy(caught.value).startswith("Move it out of the way")
    assert (tmp_path / "file").read_bytes() == b"PRECIOUS"
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("flags", FLAGS.values(), ids=FLAGS)
def test_files_are_opened_also_by_links_above_them(tmp_path: Path, flags: int) -> None:
    """Where a run lies, and by which way one gets there, is the user's."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "file").write_bytes(b"content")
    os.link(tmp_path / "run" / "file", tmp_path / "run" / "hard link")
    (tmp_path / "way").symlink_to("run")
    for name in ("file", "hard link"):
        descriptor = door.open_regular(tmp_path / "way" / name, flags)
        assert os.read(descriptor, 7) == b"content"
        os.close(descriptor)


def test_no_descriptor_is_left_behind(places: dict[str, Path]) -> None:
    """Refused a thousand times, nothing is open."""
    before = len(os.listdir("/dev/fd"))
    for path in [*places.values()] * 20:
        with pytest.raises(door.IrregularError):
            door.open_regular(path, os.O_RDONLY)
    assert len(os.listdir("/dev/fd")) == before


def test_a_directory_of_the_runs_own(places: dict[str, Path], tmp_path: Path) -> None:
    """Is there, or isn't, or something else is."""
    assert door.is_directory(tmp_path / "folder")
    assert not door.is_directory(tmp_path / "nothing")
    for path in (tmp_path / "file", *(path for kind, path in places.items() if kind != "a directory")):
        with pytest.raises(door.IrregularError, match="lies in its place"):
            door.is_directory(path)


PACKAGE = Path(ckpt_callbacks.__file__).parent
OTHER_FILES = {"store/provenance.py": "git's, and /proc", "saving/overlap.py": "the limits of a container"}
DOORS = {"door.py": "the door", "store/files.py": "creates what must not exist, and opens directories"}


def opens(call: ast.Call) -> bool:
    """Whether a call opens a file by its name."""
    match call.func:
        case ast.Name("open") | ast.Attribute(ast.Name("os" | "io"), "open"):
            return True
        case ast.Attribute(_, "read_bytes" | "read_text" | "write_bytes" | "write_text" | "touch"):
            return True
    return False


def test_there_is_no_other_door() -> None:
    """Whoever opens a file of a run by another way would follow links again, and wait for pipes."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        if any(map(opens, calls)):
            found.add(path.relative_to(PACKAGE).as_posix())
    assert found == {*DOORS, *OTHER_FILES}
