"""The run lock: one process at a time, named in the error, and gone with its process."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ckpt_callbacks.errors import RunLockedError, StoreError
from ckpt_callbacks.store import RunLock, owner_of
from ckpt_callbacks.store import lock as lock_module

fcntl = pytest.importorskip("fcntl", reason="this system has no flock")

HOLD = """
import sys
from ckpt_callbacks.store import RunLock
with RunLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.readline()
"""

FORK = """
import os, signal, sys
from ckpt_callbacks.store import RunLock
lock, parent = RunLock(sys.argv[1]).acquire(), os.getpid()
if os.fork() == 0:
    os.kill(parent, signal.SIGKILL)
    print("forked", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock until a line is sent to it."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path), "--token=abc"], stdin=-1, stdout=-1, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_another_process_is_refused_and_told_who_holds_the_run(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    """The message names pid, host and since when, and what to do."""
    with pytest.raises(RunLockedError, match=rf"in use by process {other.pid} on .* since 20.*[Ww]ait until it ends"):
        RunLock(tmp_path).acquire(patience=0)
    owner = owner_of(tmp_path)
    assert owner is not None
    assert owner.pid == other.pid
    assert "--token=***" in str(owner.command)


def test_the_lock_is_free_when_its_holder_lets_go(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    """Then anybody may have it; the text that is left in the file means nothing."""
    other.communicate("\n")
    assert owner_of(tmp_path) is None
    with RunLock(tmp_path) as lock:
        assert lock.held
        assert json.loads(lock.path.read_text())["pid"] == os.getpid()


def test_the_lock_dies_with_its_process(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    """SIGKILL leaves nothing to clean up."""
    other.send_signal(signal.SIGKILL)
    with RunLock(tmp_path).acquire():
        assert owner_of(tmp_path).pid == os.getpid()  # type: ignore[union-attr]


def test_within_one_process_the_lock_is_counted(tmp_path: Path) -> None:
    """Two callbacks on one run in one program: the run is free when both have let go, by whichever path."""
    (tmp_path / "run").mkdir()
    (tmp_path / "alias").symlink_to("run")
    first, second = RunLock(tmp_path / "run").acquire(), RunLock(tmp_path / "alias").acquire()
    first.release()
    first.release()
    assert not first.held
    assert owner_of(tmp_path / "run") is not None
    second.release()
    assert owner_of(tmp_path / "run") is None


def test_a_forked_child_does_not_hold_the_run(tmp_path: Path) -> None:
    """A data loader's worker that outlives its killed parent must not keep the run locked."""
    parent = subprocess.Popen([sys.executable, "-c", FORK, str(tmp_path)], stdin=-1, stdout=-1, text=True)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "forked\n"
    assert parent.wait() == -signal.SIGKILL
    assert owner_of(tmp_path) is None
    RunLock(tmp_path).acquire(patience=0).release()
    parent.communicate("\n")  # only now the child may end


def test_looking_neither_takes_nor_frees_the_lock(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    """`owner_of` may be asked at any time."""
    for _ in range(3):
        assert owner_of(tmp_path) is not None
    assert owner_of(tmp_path / "nothing") is None


def test_an_unreadable_owner_is_still_an_owner(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    """A process that has not yet written its name holds the lock all the same."""
    (tmp_path / ".lock").write_text('{"pid": ')
    with pytest.raises(RunLockedError, match="another process"):
        RunLock(tmp_path).acquire(patience=0)


def test_without_locks_the_run_goes_on_with_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Some network file systems have no locks; that is no reason not to train."""

    def unsupported(descriptor: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    for _ in range(2):
        with RunLock(tmp_path) as lock:
            assert lock.held
    assert [record.message for record in caplog.records if "can't be locked" in record.message] == [
        caplog.records[0].message
    ]


def test_no_flock_at_all_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As on Windows: warned, not refused."""
    monkeypatch.setattr(lock_module, "fcntl", None)
    with RunLock(tmp_path):
        assert owner_of(tmp_path) is not None
    assert owner_of(tmp_path) is None
    assert "can't be locked" in caplog.text


def test_a_directory_that_is_not_there_can_not_be_locked(tmp_path: Path) -> None:
    """The error says what to check."""
    with pytest.raises(StoreError, match="Check that the directory exists"):
        RunLock(tmp_path / "nothing").acquire()


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.ETIMEDOUT, errno.EACCES])
def test_a_server_that_is_away_is_told_with_place_and_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """To who wants the lock, and who only looks."""

    def refuses(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    RunLock(tmp_path).acquire().release()
    monkeypatch.setattr(lock_module.fcntl, "flock", refuses)
    for act in (RunLock(tmp_path).acquire, lambda: owner_of(tmp_path)):
        with pytest.raises(StoreError, match=rf"{tmp_path}/.lock can't be locked: .*{os.strerror(number)}\. [A-Z]"):
            act()
