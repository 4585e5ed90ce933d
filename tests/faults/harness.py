"""Makes named system calls fail below one directory, in every thread; and says what must hold after any fault.

The calls are replaced in `os` itself, so whatever touches the run's files is met: the store, the trace, `pathlib`.
"""

from __future__ import annotations

import builtins
import gc
import io
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ckpt_callbacks import CheckpointError, Run, every_steps, keep_best, keep_last, weights_after
from ckpt_callbacks.checkpointer import BaseCheckpointer
from ckpt_callbacks.state.captured import Captured
from tests.loop import Loop

__all__ = ["Call", "FrozenLoop", "checkpointer", "contract", "failing", "nothing_leaks", "trains", "undisturbed"]

_WRAPPED = (
    *("mkdir", "open", "write", "pwrite", "ftruncate", "fsync", "replace", "link", "symlink", "unlink", "rmdir"),
    *("read", "preadv", "stat", "lstat", "fstat", "scandir", "statvfs"),
)
_WRITING = os.O_WRONLY | os.O_RDWR


class Call:
    """One system call below the directory: its name, the path, and how many came before it."""

    def __init__(self, name: str, path: str, count: int) -> None:
        self.name, self.path, self.count = name, path, count

    def __repr__(self) -> str:
        return f"{self.count}: {self.name} {self.path}"


@contextmanager
def failing(root: Path, number: int, when: Callable[[Call], bool]) -> Iterator[list[Call]]:
    """Let the calls below ``root`` for which ``when`` is true fail with this error number; give all calls made."""
    made: list[Call] = []
    top, guard = os.path.realpath(root), threading.Lock()

    def meet(name: str, place: object) -> None:
        path = _path(place)
        if path is None or not (path == top or path.startswith(top + "/")):
            return
        with guard:
            call = Call(name, path[len(top) + 1 :], len(made))
            made.append(call)
        if when(call):
            raise OSError(number, os.strerror(number), path)

    def wrap(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            said = name
            if name == "open" and len(arguments) > 1 and arguments[1] & _WRITING:
                said = "create"
            meet(said, arguments[1] if name in ("link", "symlink") else arguments[0])
            return real(*arguments, **options)

        return wrapped

    def opening(real: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(file: Any, *arguments: Any, **options: Any) -> Any:
            meet("open", file)
            return real(file, *arguments, **options)

        return wrapped

    with pytest.MonkeyPatch.context() as patch:
        for name in _WRAPPED:
            patch.setattr(os, name, wrap(name, getattr(os, name)))
        patch.setattr(builtins, "open", opening(builtins.open))
        patch.setattr(io, "open", opening(io.open))
        yield made


def _path(place: object) -> str | None:
    if isinstance(place, int):
        try:
            return os.readlink(f"/proc/self/fd/{place}")
        except OSError:
            return None
    return os.path.abspath(os.fsdecode(place)) if isinstance(place, (str, bytes, os.PathLike)) else None


class FrozenLoop(Loop):
    """A loop with a large layer that isn't trained: snapshots share its file by a hard link."""

    def __init__(self, checkpointer: BaseCheckpointer) -> None:
        super().__init__(checkpointer)
        self.frozen = np.arange(1 << 18, dtype=np.float64)

    def capture(self) -> Captured:
        """The state of now."""
        weights = {"w": self.weights, "frozen": self.frozen}
        return Captured(weights, {"step": self.step}, frozen=frozenset({"frozen"}))


def checkpointer(directory: Path, **options: Any) -> BaseCheckpointer:
    """Saves every two steps; keeps two, and the weights of the best."""
    rules = [keep_last(2), keep_best(1), weights_after(2)]
    return BaseCheckpointer(directory, **{"monitor": "loss", "save": every_steps(2), "keep": rules, **options})


def undisturbed(directory: Path, steps: int = 6) -> Path:
    """A run of six steps, whose first snapshot of those that are left is pinned."""
    FrozenLoop(checkpointer(directory, durability="none")).run(steps)
    run = Run(directory)
    run.pin(run.snapshots()[0].id, "in the paper")
    return directory


def contract(directory: Path, pinned: str, reached: int) -> None:
    """What must hold once a fault is gone: nothing is lost, the run carries on, and nothing is left over.

    Args:
        directory: the run.
        pinned: id of the snapshot that was pinned before.
        reached: the step of the newest snapshot that was there before.
    """
    run = Run(directory)
    assert run.verify().problems == ()
    assert pinned in {snapshot.id for snapshot in run.snapshots()}
    assert run.latest is not None
    assert run.latest.step >= reached
    again = checkpointer(directory, durability="none")
    end = run.latest.step + 6
    loop = FrozenLoop(again).run(end)
    assert again.resumed is not None
    assert again.resumed.step >= reached
    assert {*loop.weights.tolist()} == {end}
    assert {path.name for path in (directory / "snapshots").iterdir()} == {one.id for one in run.snapshots()}
    assert not list(directory.rglob("*.partial"))
    assert run.aside() == []


@contextmanager
def nothing_leaks() -> Iterator[None]:
    """No thread of ours and no descriptor may be left by the block."""

    def ours() -> set[threading.Thread]:
        return {one for one in threading.enumerate() if one.name.startswith("ckpt")}

    threads, descriptors = ours(), len(os.listdir("/proc/self/fd"))
    yield
    gc.collect()  # a memory map is closed with its array
    assert ours() <= threads
    assert len(os.listdir("/proc/self/fd")) <= descriptors


def trains(directory: Path, steps: int, on_error: str, **options: Any) -> tuple[FrozenLoop, CheckpointError | None]:
    """Train; give the loop as it then was, and the error of ours that ended it. Any other error is a bug."""
    loop = FrozenLoop(checkpointer(directory, on_error=on_error, **options))
    try:
        loop.run(steps)
    except CheckpointError as error:
        return loop, error
    return loop, None
