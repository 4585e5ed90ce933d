"""``make soak``: one training, killed at random times again and again, on a disk that is full now and then, watched.

A Lightning run is started, killed by SIGKILL after a random while, and started again by the same call, until the time
is up; then it may finish. Beside it another process lists, verifies, pins and judges, and runs `ckpt ls`, `ckpt verify`
and `ckpt prune --dry-run`; between two lives `ckpt prune` deletes. In some lives the disk is full for a while: a small
tmpfs, where this user may mount one, else writes are refused (injected). In the end the weights must be those of a run
that nobody disturbed, byte for byte, every snapshot must verify, and nothing may be left over; and no life may ever
have had more memory, threads or descriptors than the run that nobody disturbed, but for some room.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import logging
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ckpt_callbacks import CheckpointError, Run, every_steps, keep_best, keep_last, keep_tiers, weights_after
from ckpt_callbacks.store.files import disk
from tests.golden.models import train_lightning

DISK = 24 << 20
REFUSED = 75
"""The exit code of a life that a full disk did not let begin."""
OPTIONS: dict[str, Any] = {
    "monitor": "loss",
    "save": every_steps(5),
    "keep": [keep_last(3), keep_best(1), keep_tiers({"2s": 3}), weights_after(2)],
    "on_error": "warn",
}


def main() -> int:
    """Soak, and print what was done and found."""
    parser = argparse.ArgumentParser(prog="benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--epochs", type=int, help="of three steps each; default: as many as the time needs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--directory", help="where to write")
    arguments = parser.parse_args()
    epochs = arguments.epochs or int(arguments.minutes * 1000)
    with tempfile.TemporaryDirectory(dir=arguments.directory) as folder:
        found = soak(Path(folder), arguments.minutes * 60, epochs, arguments.seed)
    for name, value in found.items():
        print(f"{name:44} {value}")
    return 0 if found["as the undisturbed run, byte for byte"] and not found["problems"] else 1


@dataclass
class Usage:
    """The most that a process was seen to have: bytes, threads, open files."""

    memory: int = 0
    threads: int = 0
    descriptors: int = 0

    def see(self, process: int) -> None:
        """Look at a process from outside; one that has just ended has nothing."""
        with contextlib.suppress(OSError, KeyError, ValueError):
            facts = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
            self.descriptors = max(self.descriptors, len(os.listdir(f"/proc/{process}/fd")))
            self.threads = max(self.threads, int(facts["Threads"]))
            self.memory = max(self.memory, int(facts["VmHWM"].split()[0]) << 10)

    def beyond(self, bound: Usage) -> list[str]:
        """What is more than the bound."""
        mine, others = vars(self), vars(bound)
        return [f"{name}: {mine[name]:,}, at most {others[name]:,}" for name in mine if mine[name] > others[name]]

    def with_room(self) -> Usage:
        """What others may have of which this is the measure."""
        return Usage(self.memory * 5 // 4 + (32 << 20), self.threads + 4, self.descriptors + 16)


@contextlib.contextmanager
def small_disk(place: Path) -> Iterator[bool]:
    """Mount a small file system there, if this user may; tell whether it is one."""
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", str(place)]
    mounted = shutil.which("mount") is not None and subprocess.run(mount, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(place)], check=True)


def soak(folder: Path, seconds: float, epochs: int, seed: int) -> dict[str, Any]:
    """Disturb a run for so long, let it finish, and tell what is wrong with it."""
    with small_disk(folder / "disk") as is_real:
        return _soak(folder, seconds, epochs, random.Random(seed), is_real)


def _soak(folder: Path, seconds: float, epochs: int, rng: random.Random, is_real: bool) -> dict[str, Any]:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.golden.models", "pytorch_lightning", "torch.utils.data"])
    directory, over, lives = folder / "disk" / "run", context.Event(), Lives(context, folder, epochs, rng, is_real)
    watcher = context.Process(target=_watch, args=(directory, over, folder / "watched.json"))
    watcher.start()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and lives.one():
        if rng.random() < 0.2:
            lives.problems += _command("prune", directory)[1]
    lives.last("last", directory)
    over.set()
    watcher.join()
    alone = lives.last("alone", folder / "alone")
    last, other, watched = (json.loads((folder / f"{name}.json").read_text()) for name in ("last", "alone", "watched"))
    return {
        "disk": f"tmpfs of {DISK >> 20} MiB, really full" if is_real else "no mount permitted: full by injection",
        "kills": lives.kills,
        "lives with a full disk, of them refused": f"{lives.full}, {lives.refused}",
        "steps": Run(directory).latest.step,  # type: ignore[union-attr]
        "looks from beside (verify, judge, pin)": watched["looks"],
        "processes beside (ls, verify, prune)": watched["commands"],
        "as the undisturbed run, byte for byte": last["weights"] == other["weights"],
        "most of any life, and undisturbed": f"{lives.most} {alone}",
        "problems": [
            *watched["problems"],
            *lives.problems,
            *_leftovers(directory),
            *last["leaks"],
            *lives.most.beyond(alone.with_room()),
        ],
    }


class Lives:
    """The lives of one training: each ends by our hand, or by itself."""

    def __init__(self, context: Any, folder: Path, epochs: int, rng: random.Random, is_real: bool) -> None:
        self.context, self.folder, self.epochs, self.rng, self.is_real = context, folder, epochs, rng, is_real
        self.kills = self.full = self.refused = 0
        self.most = Usage()
        self.problems: list[str] = []

    def one(self) -> bool:
        """Whether it was cut short."""
        full = (self.rng.uniform(0, 3), self.rng.uniform(0.05, 1)) if self.rng.random() < 0.25 else None
        self.full += full is not None
        injected = None if self.is_real else full
        process = _run(self.context, self.folder / "killed.json", self.folder / "disk" / "run", self.epochs, injected)
        began, ends = time.monotonic(), self.rng.uniform(0.3, 6)
        filler = self.folder / "disk" / "filler"
        while process.exitcode is None and (lived := time.monotonic() - began) < ends:
            if self.is_real and full is not None and full[0] < lived < sum(full):
                _fill(filler)
            else:
                filler.unlink(missing_ok=True)
            self.most.see(process.pid)
            process.join(0.05)
        filler.unlink(missing_ok=True)
        if process.exitcode is None:
            os.kill(process.pid, signal.SIGKILL)
            process.join()
        if process.exitcode == REFUSED and full is not None:
            self.refused += 1
        elif process.exitcode not in (0, -signal.SIGKILL):
            raise SystemExit(f"a life ended with exit code {process.exitcode}")
        self.kills += process.exitcode == -signal.SIGKILL
        return bool(process.exitcode)

    def last(self, name: str, directory: Path) -> Usage:
        """One that nobody disturbs, to the end: the most that it had."""
        process, usage = _run(self.context, self.folder / f"{name}.json", directory, self.epochs, None), Usage()
        while process.exitcode is None:
            usage.see(process.pid)
            process.join(0.05)
        if process.exitcode:
            raise SystemExit(f"the undisturbed life ended with exit code {process.exitcode}")
        return usage


def _fill(filler: Path) -> None:
    """Take whatever is left of the disk."""
    with contextlib.suppress(OSError), open(filler, "ab", buffering=0) as file:
        while file.write(b"\0" * 4096):
            pass


def _command(name: str, directory: Path, *options: str) -> tuple[bool, list[str]]:
    """Run a real `ckpt`: whether it said something of a run, and what is wrong with what it said."""
    command = [sys.executable, "-m", "ckpt_callbacks.cli", name, str(directory), *options]
    done = subprocess.run(command, capture_output=True, text=True)
    fine = done.returncode == 0 or (done.returncode == 2 and "Traceback" not in done.stderr)  # no run yet, or full
    said = (done.stdout + done.stderr)[-500:]
    return done.returncode == 0, [] if fine else [f"ckpt {name}: {done.returncode}: {said}"]


def _run(context: Any, report: Path, directory: Path, epochs: int, full: tuple[float, float] | None) -> Any:
    process = context.Process(target=_train, args=(report, directory, epochs, full))
    process.start()
    return process


def _train(report: Path, directory: Path, epochs: int, full: tuple[float, float] | None) -> None:
    """Train to the end, and report the weights and what is still open then."""
    warnings.simplefilter("ignore")
    logging.disable()
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for the rest of this process
    if full is not None:
        _refuse_writes(*full)
    threads, descriptors = set(threading.enumerate()), len(os.listdir("/proc/self/fd"))
    try:
        _, module = train_lightning(directory, epochs, **OPTIONS)
    except CheckpointError:  # a full disk may refuse a start
        os._exit(REFUSED)
    leaks = [f"thread {one.name}" for one in set(threading.enumerate()) - threads if one.name.startswith("ckpt")]
    more = len(os.listdir("/proc/self/fd")) - descriptors
    report.write_text(
        json.dumps(
            {
                "weights": [value.numpy().tobytes().hex() for value in module.state_dict().values()],
                "leaks": leaks + ([f"{more} descriptors"] if more > 0 else []),
            }
        )
    )


def _refuse_writes(after: float, seconds: float) -> None:
    """Let the disk be full for a while, but for the smallest writes."""
    begins, write = time.monotonic() + after, disk.write

    def refusing(descriptor: int, data: Any) -> int:
        if begins < time.monotonic() < begins + seconds and len(data) > 200:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data)

    disk.write = refusing  # type: ignore[method-assign]


def _watch(directory: Path, over: Any, report: Path) -> None:
    """Look at the run again and again, as people and other jobs would; whatever is listed must be whole."""
    warnings.simplefilter("ignore")
    looks, commands, problems = 0, 0, set()
    while not over.wait(0.05):
        try:
            run = Run(directory)
            problems |= {str(problem) for problem in run.verify().problems}
            run.verdict()
            if (latest := run.latest) is not None and looks % 5 == 0:
                run.unpin(run.pin(latest.id).id)
            looks += 1
            if looks % 10 == 0:
                for command in (("ls",), ("verify",), ("prune", "--dry-run")):
                    answered, wrong = _command(command[0], directory, *command[1:])
                    commands += answered
                    problems |= set(wrong)
        except CheckpointError:  # no run yet, or the snapshot was deleted between two looks
            continue
    report.write_text(json.dumps({"looks": looks, "commands": commands, "problems": sorted(problems)}))


def _leftovers(directory: Path) -> list[str]:
    """Whatever is in a run and belongs to nothing."""
    run = Run(directory)
    snapshots = {snapshot.id: snapshot for snapshot in run.snapshots()}
    found = [str(path.relative_to(directory)) for path in directory.rglob("*.partial")]
    found += [path.name for path in (directory / "snapshots").iterdir() if path.name not in snapshots]
    for snapshot in snapshots.values():
        names = {path.name for path in snapshot.path.iterdir()}
        found += [f"{snapshot.id}/{name}" for name in names - {"manifest.json", *snapshot.manifest.files}]
    return [f"left over: {name}" for name in found] + [str(problem) for problem in run.verify().problems]


if __name__ == "__main__":
    sys.exit(main())
