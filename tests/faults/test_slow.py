"""A slow disk lengthens the time between two saves; it does not stop training, fill memory or change any order."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from ckpt_callbacks import Run, keep_all
from tests.faults.harness import FrozenLoop, checkpointer, nothing_leaks

AT_ONCE = 2  # one is written, and one waits


def test_training_goes_on_while_a_save_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first save hangs in its fsync until training has made every step that it can: it waits with the third save,
    and not before. Then all are saved, in their order."""
    goes_on, hangs = threading.Event(), threading.Event()
    real = os.fsync

    def stuck(descriptor: int) -> None:
        hangs.set()
        goes_on.wait()
        real(descriptor)

    one = checkpointer(tmp_path / "run", keep=keep_all())
    loop = FrozenLoop(one)
    steps: list[int] = []

    def loss(step: int) -> float:
        steps.append(step)
        if step == 1:
            monkeypatch.setattr(os, "fsync", stuck)
        if step == 2 * (1 + AT_ONCE):  # it reaches the boundary of the third save, and can't be seen beyond it
            assert hangs.wait(10)
            threading.Timer(0.2, look).start()
        return 1 / step

    def look() -> None:
        monkeypatch.setattr(os, "fsync", real)
        seen.append((steps[-1], [snapshot.step for snapshot in one.snapshots()]))
        goes_on.set()

    seen: list[tuple[int, list[int]]] = []
    loop.loss = loss
    with nothing_leaks():
        loop.run(12)
    assert seen == [(6, [])]
    assert [snapshot.step for snapshot in Run(tmp_path / "run").snapshots()] == [2, 4, 6, 8, 10, 12]


def test_short_writes_are_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk or a signal may take less than it was given, at any write: every byte arrives all the same."""
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, memoryview(data)[: 1 + len(data) // 3]))
    FrozenLoop(checkpointer(tmp_path / "run")).run(8)
    monkeypatch.undo()
    run = Run(tmp_path / "run")
    assert [snapshot.step for snapshot in run.snapshots()][-1] == 8
    assert run.verify()
