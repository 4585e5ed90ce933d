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
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

KILL_AT = 151  # mid-epoch: an epoch has 38 steps
STEPS = 228


@dataclass
class Outcome:
    """What one training process left behind."""

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
    console.print("Training digits: 1,797 real images, a CNN with dropout, shuffling, AdamW and a cosine schedule.")
    try:
        with _progress(console) as progress:
            lanes = [threading.Thread(target=_run, args=(job, scratch, progress)) for job in jobs]
            for lane in lanes:
                lane.start()
            for lane in lanes:
                lane.join()
        console.print(_table(jobs))
        console.print(
            f"[dim]{time.monotonic() - began:.0f} s; every run is a process of its own, killed by SIGKILL.[/]"
        )
        _verdict(console, jobs)
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
                progress.advance(task)
                if outcome.last_step == stop_at:
                    process.send_signal(signal.SIGKILL)
            elif line.startswith("{"):
                outcome.result = json.loads(line)
    outcome.killed = process.returncode == -signal.SIGKILL
    if process.returncode != 0 and not outcome.killed:
        raise SystemExit(f"{' '.join(command)} failed with exit code {process.returncode}:\n{log.read_text()[-4000:]}")
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


def _table(jobs: list[Job]) -> Table:
    table = Table(title="Killed by SIGKILL mid-epoch, started again by the same command", title_justify="left")
    table.add_column("")
    for heading in ("killed at", "resumed from", "replayed"):
        table.add_column(heading, justify="right")
    for heading in ("weights, uninterrupted", "weights, resumed", "identical"):
        table.add_column(heading)
    for job in jobs:
        rows = [("[bold]ckpt_callbacks[/]", job.ours), (job.peer, job.theirs)]
        table.add_section()
        table.add_row(f"[bold]{job.title}[/]")
        for name, (killed, resumed) in rows:
            table.add_row(f"  {name}", *_cells(job.reference, killed, resumed))
        best = job.ours[1].result
        table.add_row(
            f"  [dim]best snapshot: step {best['best_step']}, val_loss {best['best']:.4f}, "
            f"held-out accuracy {best['accuracy']:.1%}[/]"
        )
    return table


def _cells(reference: Outcome, killed: Outcome, resumed: Outcome) -> list[str]:
    """The cells of one arm; what a peer does not say about itself is shown as a dash."""
    start = resumed.result.get("resumed_from")
    same = resumed.result["sha256"] == reference.result["sha256"]
    return [
        f"step {killed.last_step}" if killed.killed else "not killed",
        f"step {start}" if start is not None else "-",
        str(killed.last_step - int(start)) if start is not None else "-",  # type: ignore[call-overload]
        str(reference.result["sha256"])[:16],
        str(resumed.result["sha256"])[:16],
        "[green]yes[/]" if same else "[red]no[/]",
    ]


def _verdict(console: Console, jobs: list[Job]) -> None:
    for job in jobs:
        if job.identical:
            console.print(f"[green]✓[/] {job.title}: bit for bit the run that was never killed, nor even checkpointed.")
        else:
            console.print(f"[red]✗ {job.title}: the resumed run ended with other bytes. Please report this.[/]")


if __name__ == "__main__":
    sys.exit(main())
