"""Every way to train that the tests know, killed at several places: does the resumed run end with the same bytes?

    make matrix
    python -m benchmarks.matrix lightning --only schedule
    KERAS_BACKEND=torch python -m benchmarks.matrix keras

Each cell is two real processes: one killed by SIGKILL, and one started again by the same command, whose bytes (weights,
optimizer, schedulers, random generators, logged metrics) are compared, with tolerance 0, with those of a run that was
never killed and had no checkpoint callback. Beside ours stands the framework's own callback, which saves as often.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from tests.processes import KILLED, run


@dataclass(frozen=True)
class Suite:
    """A framework's jobs, where they are killed, and the callback to compare with."""

    title: str
    jobs: str
    preload: str
    peer: str
    places: dict[str, tuple[str, int]]


BACKEND = os.environ.get("KERAS_BACKEND", "tensorflow")

SUITES = {
    "lightning": Suite(
        "PyTorch Lightning: models and ways to train",
        "tests.jobs.lightning_jobs",
        "pytorch_lightning",
        "ModelCheckpoint",
        {
            "mid-epoch": ("on_train_batch_end", 12),
            "last batch": ("on_train_batch_end", 14),
            "end of epoch": ("on_train_epoch_end", 2),
        },
    ),
    "lightning-data": Suite(
        "PyTorch Lightning: ways that data come",
        "tests.jobs.lightning_data_jobs",
        "pytorch_lightning",
        "ModelCheckpoint",
        {"mid-epoch": ("on_train_batch_end", 11), "end of epoch": ("on_train_epoch_end", 2)},
    ),
    "keras": Suite(
        f"Keras on {BACKEND}",
        "tests.jobs.keras_jobs",
        "keras",
        "BackupAndRestore",
        {"mid-epoch": ("on_train_batch_end", 10), "end of epoch": ("on_epoch_end", 2)},
    ),
}


@dataclass
class Row:
    """One job: for each place, whether ours and theirs ended with the reference's bytes."""

    name: str
    ours: dict[str, str] = field(default_factory=dict)
    theirs: dict[str, str] = field(default_factory=dict)


def main() -> int:
    """Print one table per framework; exit code 1 if one of our cells is not exact."""
    arguments = _arguments()
    console = Console() if sys.stdout.isatty() else Console(width=150)
    watch = Console(file=_quiet_stderr())
    failed = 0
    for name in arguments.suites or SUITES:
        suite = SUITES[name]
        names = [job for job in _jobs(suite) if arguments.only in job]
        with ThreadPoolExecutor(arguments.lanes) as lanes:
            work = lanes.map(lambda job, suite=suite: _row(suite, job), names)
            rows = list(track(work, suite.title, len(names), console=watch, transient=True))
        console.print(_table(suite, rows))
        failed += sum(cell != "exact" for row in rows for cell in row.ours.values())
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Which set-ups resume exactly, ours and the framework's own.")
    parser.add_argument("suites", nargs="*", choices=[*SUITES, []], help="default: all")
    parser.add_argument("--only", default="", help="jobs whose name holds this text")
    parser.add_argument("--lanes", type=int, default=2, help="processes at a time")
    return parser.parse_args()


def _quiet_stderr() -> TextIO:
    """Keep what frameworks print while they are imported, in every process, off the screen; give the screen."""
    screen = os.fdopen(os.dup(2), "w")
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    return screen


def _jobs(suite: Suite) -> list[str]:
    return list(importlib.import_module(suite.jobs).JOBS)


def _row(suite: Suite, name: str) -> Row:
    scratch = Path(tempfile.mkdtemp(prefix="ckpt-matrix-"))
    row = Row(name)
    try:
        _train(suite, name, scratch / "reference", checkpoint=False)
        for place, kill in suite.places.items():
            for cells, peer in ((row.ours, False), (row.theirs, True)):
                cells[place] = _cell(suite, name, scratch / f"{place}-{peer}", kill, peer, scratch / "reference")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return row


def _cell(suite: Suite, name: str, path: Path, kill: tuple[str, int], peer: bool, reference: Path) -> str:
    """Kill and start again; "exact", "not exact", or what else happened."""
    try:
        if _train(suite, name, path, kill, peer=peer, background=False) != KILLED:
            return "not reached"
        saved = any(file.is_file() for file in (path / "run").rglob("*"))
        _train(suite, name, path, peer=peer)
    except AssertionError:
        return "error"
    if not saved or (not peer and (path / "result.resumed").read_text() == "0"):
        return "from scratch"  # nothing to resume from: the same bytes would prove nothing
    return "exact" if _bytes(path) == _bytes(reference) else "not exact"


def _train(suite: Suite, name: str, path: Path, kill: tuple[str, int] | None = None, **options: Any) -> int:
    path.mkdir(exist_ok=True)
    train = importlib.import_module(suite.jobs).train
    arguments = (name, str(path / "run"), str(path / "result"), kill)
    return run(train, *arguments, options=options, log=path / "log.txt", preload=(suite.preload,))


def _bytes(path: Path) -> dict[str, bytes]:
    """Everything a finished job left, and the metrics of the last epoch that it logged."""
    with np.load(path / "result.npz") as arrays:
        found = {name: arrays[name].tobytes() for name in arrays.files}
    logged = json.loads((path / "result.json").read_text())
    last = logged[-1:] if isinstance(logged, list) else logged
    return {**found, "logged": json.dumps(last, sort_keys=True).encode()}


def _table(suite: Suite, rows: list[Row]) -> Table:
    table = Table(title=suite.title, box=box.SIMPLE_HEAD, title_style="bold", show_footer=True)
    table.add_column("killed at", footer="exact", min_width=40)
    for who, cells in _columns(suite, rows):
        for place in suite.places:
            count = sum(row[place] == "exact" for row in cells)
            table.add_column(f"{who}\n{place}", footer=f"{count} of {len(rows)}", no_wrap=True)
    for row in rows:
        table.add_row(row.name, *(_mark(cells[place]) for cells in (row.ours, row.theirs) for place in suite.places))
    return table


def _columns(suite: Suite, rows: list[Row]) -> Iterator[tuple[str, list[dict[str, str]]]]:
    yield "ours", [row.ours for row in rows]
    yield suite.peer, [row.theirs for row in rows]


def _mark(cell: str) -> str:
    return f"[green]{cell}[/]" if cell == "exact" else f"[red]{cell}[/]"


if __name__ == "__main__":
    sys.exit(main())
