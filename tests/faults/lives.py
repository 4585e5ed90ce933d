"""A training in a process of its own, in whose middle the machine really fails for a while: what `test_real` runs.

    python -m tests.faults.lives FAULT DIRECTORY ON_ERROR

prints as JSON what became of it: the step that it reached, its error or None, its warnings, and the steps that were
saved before, while and after the fault. That nothing is lost and that the run carries on is checked here, since a
mounted file system ends with its process.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ckpt_callbacks import CheckpointError, Run
from tests.faults.harness import checkpointer, contract, nothing_leaks
from tests.loop import Loop

BREAKS, MENDED, STEPS = 7, 11, 14
FLOATS = 1 << 17  # 1 MiB: large enough to be written past the page cache


def main(fault: str, directory: Path, on_error: str) -> None:
    """Train until step 14; the machine fails from step 7 to 11."""
    warnings: list[str] = []
    logging.getLogger("ckpt_callbacks").addHandler(_Collect(warnings))
    one = checkpointer(directory, on_error=on_error)
    loop = _Broken(one, lambda: _breaks(fault, directory), lambda: _mended(fault, directory))
    error = None
    with nothing_leaks():
        try:
            loop.run(STEPS)
        except CheckpointError as raised:
            error = str(raised)
            _mended(fault, directory)
    run = Run(directory)
    outcome = {
        "step": loop.step,
        "error": error,
        "warnings": warnings,
        "saved": [entry["step"] for entry in _journal(directory) if entry["event"] == "saved"],
        "kept": [snapshot.step for snapshot in run.snapshots()],
    }
    contract(directory, loop.pinned, reached=BREAKS - 1)
    sys.stdout.write(json.dumps(outcome))


class _Broken(Loop):
    """A loop with a megabyte of weights, in whose middle something happens."""

    def __init__(self, checkpointer, breaks: Callable[[], None], mended: Callable[[], None]) -> None:
        super().__init__(checkpointer)
        self.weights = np.zeros(FLOATS)
        self.pinned = ""
        self.loss = lambda step: self._at(step, breaks, mended)

    def _at(self, step: int, breaks: Callable[[], None], mended: Callable[[], None]) -> float:
        if step == BREAKS:
            self.checkpointer.wait()
            run = Run(self.checkpointer.directory)
            self.pinned = run.pin(run.snapshots()[0].id).id
            breaks()
        if step == MENDED:
            self.checkpointer.wait()
            mended()
        return 1 / step


def _breaks(fault: str, directory: Path) -> None:
    if fault == "full":
        with (directory.parent / "filler").open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(1 << 16))
            except OSError:
                pass
    elif fault == "read-only":
        _mount("--bind", str(directory.parent), str(directory.parent))  # over the first one, which has open files
        _mount("-o", "remount,bind,ro", str(directory.parent))
    elif fault == "forbidden":
        (directory / "snapshots").chmod(0o500)
    elif fault == "descriptors":
        gc.collect()
        _limit(resource.RLIMIT_NOFILE, 1 + max(map(int, os.listdir("/proc/self/fd")[:-1])))
    elif fault == "file size":
        _limit(resource.RLIMIT_FSIZE, 300_000)


def _mended(fault: str, directory: Path) -> None:
    if fault == "full":
        (directory.parent / "filler").unlink()
    elif fault == "read-only":
        subprocess.run(["umount", "-l", str(directory.parent)], check=True)
    elif fault == "forbidden":
        (directory / "snapshots").chmod(0o755)
    elif fault == "descriptors":
        _limit(resource.RLIMIT_NOFILE, None)
    elif fault == "file size":
        _limit(resource.RLIMIT_FSIZE, None)


def _limit(which: int, soft: int | None) -> None:
    hard = resource.getrlimit(which)[1]
    resource.setrlimit(which, (hard if soft is None else soft, hard))


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def _journal(directory: Path) -> list[dict]:
    return [json.loads(line) for line in (directory / "events.jsonl").read_text().splitlines()]


class _Collect(logging.Handler):
    def __init__(self, into: list[str]) -> None:
        super().__init__(logging.WARNING)
        self.into = into

    def emit(self, record: logging.LogRecord) -> None:
        self.into.append(record.getMessage())


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
