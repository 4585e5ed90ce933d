"""Two programs on one run: a second writer is refused and told by whom; readers never see half of anything."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from ckpt_callbacks import (
    CheckpointError,
    Run,
    RunLockedError,
    SnapshotNotFoundError,
)
from ckpt_callbacks.cli import app
from ckpt_callbacks.resume import load
from ckpt_callbacks.run import resolve_reference
from ckpt_callbacks.store import owner_of
from tests.faults.harness import FrozenLoop, checkpointer, contract, undisturbed

pytest.importorskip("fcntl", reason="this system has no flock")

TRAIN = """
import logging, sys
from pathlib import Path
from ckpt_callbacks import every_steps, keep_last, weights_after
from tests.faults.harness import FrozenLoop, checkpointer
logging.disable()
one = checkpointer(Path(sys.argv[1]), save=every_steps(1), keep=[keep_last(2), weights_after(1)], durability="none")
loop = FrozenLoop(one)
began = []
def tell(step):
    if not began and one.latest is not None:
        began.append(step)
        print("trains", flush=True)
    return 1 / step
loop.loss = tell
loop.run(int(sys.argv[2]))
"""


@contextmanager
def training(directory: Path, steps: int = 10**9) -> Iterator[subprocess.Popen[str]]:
    """A process that trains, and saves and deletes at every step as fast as it can."""
    process = subprocess.Popen([sys.executable, "-c", TRAIN, str(directory), str(steps)], stdout=-1, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "trains\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_second_writer_is_refused_and_told_by_whom(tmp_path: Path) -> None:
    """Process, host, since when, that it is alive, and what to do; the first one is not disturbed."""
    with training(tmp_path / "run") as first:
        with pytest.raises(RunLockedError) as refused:
            FrozenLoop(checkpointer(tmp_path / "run")).run(4)
        assert first.poll() is None
        listed = CliRunner().invoke(app, ["ls", str(tmp_path / "run"), "--json"])
    text = str(refused.value)
    assert f"in use by process {first.pid} on {socket.gethostname()} since 20" in text
    assert "(alive)" in text
    assert "Wait until it ends, stop it, or train in another directory" in text
    assert json.loads(listed.stdout)["in_use_by"]["alive"] is True


def test_a_lock_of_the_dead_is_no_lock(tmp_path: Path) -> None:
    """After SIGKILL the file still names the process, and the next one carries on at once."""
    with training(tmp_path / "run") as first:
        first.send_signal(signal.SIGKILL)
        first.wait()
    assert json.loads((tmp_path / "run" / ".lock").read_text())["pid"] == first.pid
    assert owner_of(tmp_path / "run") is None
    one = checkpointer(tmp_path / "run")
    FrozenLoop(one).run(2)
    assert one.resumed is not None
    assert Run(tmp_path / "run").verify()


def test_of_many_that_start_at_once_one_trains(tmp_path: Path) -> None:
    """A scheduler that starts a job several times: one gets the run, the others a clear error and exit code 1."""
    command = [sys.executable, "-c", TRAIN, str(tmp_path / "run"), "1000000"]
    processes = [subprocess.Popen(command, stdout=-1, stderr=-1, text=True) for _ in range(4)]
    try:
        refused = []
        while len(refused) < 3:
            refused = [one for one in processes if one.poll() is not None]
        (winner,) = [one for one in processes if one not in refused]
        for one in refused:
            assert one.returncode == 1
            assert f"in use by process {winner.pid} on" in one.communicate()[1]
    finally:
        for one in processes:
            one.kill()
            one.communicate()
    assert Run(tmp_path / "run").verify()


def test_a_run_that_was_replaced_under_a_training_is_not_written_by_two(tmp_path: Path) -> None:
    """The directory is moved away, a copy put in its place, and another process trains in that: the first one's next
    save is refused. A lock on the file that was moved away would have kept nobody out."""
    run = undisturbed(tmp_path / "run")
    one = checkpointer(run, background=False)
    loop = FrozenLoop(one)
    others: list[subprocess.Popen[str]] = []

    def replaced(step: int) -> float:
        if step == 7:
            run.rename(tmp_path / "away")
            shutil.copytree(tmp_path / "away", run, symlinks=True)
            others.append(stack.__enter__())
        return 1 / step

    stack = training(run)
    loop.loss = replaced
    try:
        with pytest.raises(RunLockedError, match=r"in use by process \d+"):
            loop.run(10)
        assert f"process {others[0].pid} " in str(owner_of(run))
    finally:
        stack.__exit__(None, None, None)
    contract(tmp_path / "away", next(iter(Run(tmp_path / "away").pins())), 6)


def test_a_run_that_was_moved_away_under_a_training_is_begun_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Training goes on and saves where it was told to, says so, and holds the lock that others meet there."""
    run = undisturbed(tmp_path / "run")
    loop = FrozenLoop(checkpointer(run, background=False))
    owners = []

    def moved(step: int) -> float:
        if step == 7:
            run.rename(tmp_path / "away")
        if step == 9:
            owners.append(subprocess.run([sys.executable, "-c", ASK, str(run)], capture_output=True, text=True).stdout)
        return 1 / step

    loop.loss = moved
    loop.run(10)
    assert owners == [f"{os.getpid()}\n"]
    assert caplog.text.count("was moved or deleted while it is trained in") == 1
    assert [snapshot.step for snapshot in Run(run).snapshots()] == [8, 10]
    assert Run(run).verify()
    contract(tmp_path / "away", next(iter(Run(tmp_path / "away").pins())), 6)


ASK = "import sys; from ckpt_callbacks.store import owner_of; print(owner_of(sys.argv[1]).pid)"


def read_all(run: Path) -> bool:
    """`ckpt verify`."""
    found = Run(run).verify()
    assert found.ok, str(found)
    return True


def read_latest(run: Path) -> bool:
    """An evaluation job: the weights of the latest."""
    snapshot = resolve_reference(f"{run}@latest")
    weights = snapshot.weights()
    assert {*np.array(weights["w"]).tolist()} == {snapshot.step}
    return bool(snapshot.verify().ok)


def read_oldest(run: Path) -> bool:
    """What is deleted next."""
    snapshot = Run(run).snapshots()[0]
    found = snapshot.verify()
    assert found.ok, str(found)
    return True


def fork_from_oldest(run: Path) -> bool:
    """Another run that begins from a snapshot of this one."""
    return bool(load(Run(run).snapshots()[0]).weights)


def list_it(run: Path) -> bool:
    """`ckpt ls`: exit code 0, whatever is deleted meanwhile."""
    listed = CliRunner().invoke(app, ["ls", str(run), "--json"])
    assert listed.exit_code == 0, listed.output
    found = json.loads(listed.stdout)
    assert found["unreadable"] == {}
    assert found["snapshots"]
    return True


def show_oldest(run: Path) -> bool:
    """`ckpt show` of a snapshot: 0, or 2 with one line when it is gone."""
    shown = CliRunner().invoke(app, ["verify", f"{run}@{Run(run).snapshots()[0].id}"])
    assert shown.exit_code in (0, 2), shown.output
    return shown.exit_code == 0


READERS = [read_all, read_latest, read_oldest, fork_from_oldest, list_it, show_oldest]


def test_readers_never_see_half_of_a_snapshot(tmp_path: Path) -> None:
    """Six kinds of readers beside a training that saves, reduces and deletes at every step: each read sees a whole
    snapshot, or is told that it was deleted."""
    seen = readers_beside(tmp_path / "run", 40)
    assert {reader for reader, _ in seen} == {one.__name__ for one in READERS}
    assert not [key for key in seen if key[1] not in ("whole", "gone")], seen


def readers_beside(run: Path, reads: int) -> Counter[tuple[str, str]]:
    """Let every kind of reader read so often, beside a training; what they saw."""
    with training(run):
        return Counter((look.__name__, _what(look, run)) for _ in range(reads) for look in READERS)


def _what(look: Callable[[Path], bool], run: Path) -> str:
    try:
        return "whole" if look(run) else "gone"
    except SnapshotNotFoundError:
        return "gone"
    except (CheckpointError, AssertionError, OSError) as error:
        return f"{type(error).__name__}: {error}"
