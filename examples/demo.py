"""Kill a Lightning run and a Keras run mid-epoch with SIGKILL, start each again, and compare the final bytes.

    make demo

Each job runs four times: uninterrupted and without any checkpoint callback (the reference); with ours, killed, then
started again by the same command; and the same with the framework's own callback. All on real data, with real
processes. Exit code 1 if ours does not end with the reference's bytes.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

KILL_AT = 151  # mid-epoch: an epoch has 38 steps
STEPS = 228


@dataclass
class Outcome:
    """What one training process left behind."""

    first_step: int = 0
    last_step: int = 0
    killed: bool = False
    result: dict[str, object] = field(default_factory=dict)


@dataclass
class Job:
    """One training script, the framework's own callback to compare with, and what its runs gave."""

    title: str
    script: str
    peer: str
    reference: Outcome = field(default_factory=Outcome)
    ours: tuple[Outcome, Outcome] = (Outcome(), Outcome())
    theirs: tuple[Outcome, Outcome] = (Outcome(), Outcome())

    @property
    def identical(self) -> bool:
        """Whether our killed and resumed run ended with the reference's bytes."""
        return self.ours[1].result.get("sha256") == self.reference.result.get("sha256")


def main() -> int:
    """Run both jobs side by side and print what came of them."""
    console = Console()
    jobs = [
        Job("PyTorch Lightning", "examples.lightning_digits", "ModelCheckpoint"),
        Job("Keras on TensorFlow", "examples.keras_digits", "BackupAndRestore"),
    ]
    scratch = Path(tempfile.mkdtemp(prefix="ckpt-demo-"))
    began = time.monotonic()
    console.print(
        "1,797 handwritten digits; a CNN with dropout, shuffling, AdamW, cosine schedule.\n"
        f"Killed by SIGKILL at step {KILL_AT} of {STEPS}, mid-epoch; then the same command again."
    )
    try:
        with _progress(console) as progress, ThreadPoolExecutor() as lanes:
            list(lanes.map(lambda job: _run(job, scratch, progress), jobs))
        for job in jobs:
            console.print()
            console.print(_table(job))
            _verdict(console, job)
        console.print(f"\n[dim]{time.monotonic() - began:.0f} s; real processes, killed by SIGKILL from outside.[/]")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return 0 if all(job.identical for job in jobs) else 1


def _run(job: Job, scratch: Path, progress: Progress) -> None:
    """Run one job's five processes, one after the other."""
    where = scratch / job.script
    task = progress.add_task(job.title, total=5 * STEPS, doing="starting")

    def train(doing: str, callback: str, stop_at: int | None = None) -> Outcome:
        progress.update(task, doing=doing)
        return _train(job.script, where / callback, callback, stop_at, progress, task)

    job.reference = train("uninterrupted, no checkpoints", "none")
    job.ours = (
        train("ours: until SIGKILL", "Checkpointer", KILL_AT),
        train("ours: same command again", "Checkpointer"),
    )
    job.theirs = (train(f"{job.peer}: until SIGKILL", job.peer, KILL_AT), train(f"{job.peer}: again", job.peer))
    progress.update(task, completed=5 * STEPS, doing="done")


def _train(
    script: str, directory: Path, callback: str, stop_at: int | None, progress: Progress, task: TaskID
) -> Outcome:
    """Run a training script; strike as soon as it reports step ``stop_at``."""
    command = [sys.executable, "-m", script, str(directory), "--callback", callback]
    log = directory.with_suffix(".log")
    directory.parent.mkdir(parents=True, exist_ok=True)
    outcome = Outcome()
    with (
        log.open("a") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=_environment()) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("step "):
                outcome.last_step = int(line.split()[1])
                outcome.first_step = outcome.first_step or outcome.last_step
                progress.advance(task)
                if outcome.last_step == stop_at:
                    process.send_signal(signal.SIGKILL)
            elif line.startswith("{"):
                outcome.result = json.loads(line)
    outcome.killed = process.returncode == -signal.SIGKILL
    if process.returncode != 0 and not outcome.killed:
        raise RuntimeError(
            f"{' '.join(command)} failed with exit code {process.returncode}:\n{log.read_text()[-4000:]}"
        )
    return outcome


def _environment() -> dict[str, str]:
    return {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONUNBUFFERED": "1"}


def _progress(console: Console) -> Progress:
    columns = (
        TextColumn("{task.description:<20}"),
        BarColumn(24),
        TimeElapsedColumn(),
        TextColumn("{task.fields[doing]}"),
    )
    return Progress(*columns, console=console)


def _table(job: Job) -> Table:
    table = Table(title=f"[bold]{job.title}[/]", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("callback", no_wrap=True)
    for heading in ("killed", "resumed", "replayed"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("weights sha256", no_wrap=True)
    table.add_column("identical", no_wrap=True)
    table.add_row("none (unkilled)", "", "", "", _digest(job.reference), "")
    for name, (killed, resumed) in (("ckpt_callbacks", job.ours), (job.peer, job.theirs)):
        start = resumed.first_step - 1
        same = resumed.result["sha256"] == job.reference.result["sha256"]
        table.add_row(
            *(name, f"{killed.last_step}", f"{start}", f"{killed.last_step - start}"),
            *(_digest(resumed), "[green]yes[/]" if same else "[red]no[/]"),
        )
    return table


def _digest(outcome: Outcome) -> str:
    return str(outcome.result["sha256"])[:12]


def _verdict(console: Console, job: Job) -> None:
    if job.identical:
        console.print("[green]✓[/] bit for bit the run that was never killed, nor even checkpointed")
    else:
        console.print("[red]✗ the resumed run ended with other bytes. Please report this.[/]")
    best = job.ours[1].result
    console.print(
        f"  best snapshot: step {best['best_step']}, val_loss {best['best']:.4f}, "
        f"accuracy on held-out digits [bold]{best['accuracy']:.1%}[/]"
    )


if __name__ == "__main__":
    sys.exit(main())
