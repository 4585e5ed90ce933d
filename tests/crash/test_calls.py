"""The enumeration is whole: it sees what the system sees, and tells of what goes by a door that it doesn't watch."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import pytest

from tests.crash.calls import Call, Calls, Death
from tests.crash.lives import live
from tests.crash.operations import OPERATIONS
from tests.crash.trials import Trial, in_memory

HARMLESS = {
    *("access", "chdir", "close", "dup", "dup2", "dup3", "epoll_create1", "execve", "fadvise64", "fcntl", "fstat"),
    *("fstatfs", "getcwd", "getdents64", "ioctl", "lseek", "lstat", "newfstatat", "pipe2", "poll", "pread64", "preadv"),
    *("preadv2", "read", "readlink", "readlinkat", "readv", "select", "stat", "statfs", "statx", "faccessat2"),
}
"""System calls on files that change nothing."""

NAMES = {"openat": "open", "pwrite64": "pwrite", "rename": "replace", "remove": "unlink"}

ACT = """
import os, sys
from pathlib import Path
from tests.crash.calls import Call, Calls
from tests.crash.operations import OPERATIONS
made, folder = [], Path(sys.argv[2])
OPERATIONS[sys.argv[1]].prepare(folder / "run")
calls = Calls(folder, made.append)
os.stat("/.//.")  # a mark for whoever looks
OPERATIONS[sys.argv[1]].act(folder / "run")
print(*(f"{call.name} {call.path}" for call in made if call.name not in ("look", "failed")), sep=chr(10))
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed; the audit events tell as well")
@pytest.mark.parametrize("name", ["resume and save", "demote", "prune", "repair", "answer", "pin"])
def test_nothing_escapes_that_the_system_sees(name: str, tmp_path: Path) -> None:
    """Each changing system call beneath the run, as strace has it, is one of ours; by every thread."""
    log, folder = tmp_path / "strace", tmp_path / "folder"
    folder.mkdir()
    strace = ["strace", "-f", "-z", "-y", "-qq", "-s0", "-e", "signal=none", "-e", "trace=%file,%desc", "-o", str(log)]
    traced = subprocess.run([*strace, sys.executable, "-c", ACT, name, str(folder)], capture_output=True, text=True)
    if "ptrace" in traced.stderr.lower():
        pytest.skip("this system lets nobody trace")
    assert traced.returncode == 0, traced.stderr
    _, _, lines = log.read_text().partition('"/.//."')
    assert Counter(changes(lines, str(folder))) == Counter(traced.stdout.split("\n")[:-1])


def changes(lines: str, folder: str) -> list[str]:
    """What strace tells of changes beneath a folder, as "name path"."""
    found = []
    for line in lines.splitlines():
        call = re.match(r"\d+ +(\w+)\((.*)", line)
        if call is None or folder not in line or call[1] in HARMLESS:
            continue
        name, arguments = NAMES.get(call[1], call[1]), call[2]
        if name == "open" and not re.search(r"O_(WRONLY|RDWR|CREAT|TRUNC)", arguments):
            continue
        if name == "mmap" and not ("MAP_SHARED" in arguments and "PROT_WRITE" in arguments):
            continue
        quoted, opened = re.search(r'"([^"]*)"', arguments), re.match(r"\d+<([^>]*)>", arguments)
        path = opened[1] if opened is not None else quoted[1]  # type: ignore[index]
        found.append(f"{name} {path.removeprefix(folder).removeprefix('/') or '.'}")
    return found


def counted(name: str) -> tuple[list[str], Counter[Any], Counter[Any]]:
    """Try one operation twice: what went unseen, and how many calls of each kind each thread made - that have a number:
    a look has none, and whichever thread is free takes it."""
    with in_memory() as scratch:
        trials = [Trial(OPERATIONS[name], scratch / which) for which in ("one", "other")]
        calls = ([call for call in t.made if isinstance(call, Call) and call.name != "look"] for t in trials)
        one, other = (Counter((call.thread, call.name) for call in made) for made in calls)
        return [*trials[0].unseen, *trials[1].unseen], one, other


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_change_is_counted(elsewhere: Executor, name: str) -> None:
    """Nothing goes by another door, and each thread makes the same calls each time: each number is a place to die."""
    unseen, one, other = elsewhere.submit(counted, name).result()
    assert unseen == []
    assert one == other
    assert one


def unwatched(deed: Callable[[Path], object], folder: str) -> list[str]:
    """What the calls say went by another door."""

    def work(tell: Callable[[Any], None]) -> list[str]:
        calls = Calls(Path(folder), lambda call: None)
        deed(Path(folder))
        return calls.unseen

    return live(work).result


def by_another_door(folder: Path) -> None:
    """Functions written in C, which ask nobody."""
    (folder / "a").write_text("by open")


def by_a_door_that_is_watched(folder: Path) -> None:
    """The same, by `os`."""
    os.close(os.open(folder / "a", os.O_CREAT | os.O_WRONLY))
    (folder / "a").rename(folder / "b")
    (folder / "b").read_bytes()


def test_another_door_is_told(elsewhere: Executor, tmp_path: Path) -> None:
    """Else a new call of that kind would never be tried."""
    assert len(elsewhere.submit(unwatched, by_another_door, str(tmp_path)).result()) == 1
    assert elsewhere.submit(unwatched, by_a_door_that_is_watched, str(tmp_path)).result() == []


def half_written(folder: str) -> bool:
    """Whether somebody died amid a write."""

    def work(tell: Callable[[Any], None]) -> None:
        Calls(Path(folder), lambda call: None, Death("MainThread", 2, "amid"))
        descriptor = os.open(Path(folder) / "a", os.O_CREAT | os.O_WRONLY)
        os.write(descriptor, b"12345678")

    return live(work).killed


def test_amid_a_write_half_of_it_is_there(elsewhere: Executor, tmp_path: Path) -> None:
    """A large write may be cut short by a kill."""
    assert elsewhere.submit(half_written, str(tmp_path)).result()
    assert (tmp_path / "a").read_bytes() == b"1234"
