"""``make soak``: one training, killed at random times again and again, on a disk that is full now and then, watched.

A Lightning run is started, killed by SIGKILL after a random while, and started again by the same call, until the time
is up; then it may finish. Beside it another process lists, verifies, pins and judges. In some of its lives the disk
refuses to write for a while (injected). In the end the weights must be those of a run that nobody disturbed, byte for
byte, every snapshot must verify, and nothing may be left over: no file, no thread, no descriptor.
"""

from __future__ import annotations

import argparse
import errno
import json
import logging
import multiprocessing
import os
import random
import resource
import signal
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path
from typing import Any

from ckpt_callbacks import CheckpointError, Run, every_steps, keep_best, keep_last, keep_tiers, weights_after
from ckpt_callbacks.store.files import disk
from tests.golden.models import train_lightning

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


def soak(folder: Path, seconds: float, epochs: int, seed: int) -> dict[str, Any]:
    """Disturb a run for so long, let it finish, and tell what is wrong with it."""
    rng, context = random.Random(seed), multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.golden.models", "pytorch_lightning", "torch.utils.data"])
    directory, over = folder / "run", context.Event()
    watcher = context.Process(target=_watch, args=(directory, over, folder / "watched.json"))
    watcher.start()
    deadline, kills, finished = time.monotonic() + seconds, 0, False
    while time.monotonic() < deadline and not finished:
        finished = not _killed(context, folder, epochs, rng)
        kills += not finished
    _run(context, folder / "last.json", directory, epochs, None).join()
    over.set()
    watcher.join()
    _run(context, folder / "alone.json", folder / "alone", epochs, None).join()
    last, alone, watched = (json.loads((folder / f"{name}.json").read_text()) for name in ("last", "alone", "watched"))
    return {
        "kills": kills,
        "steps": Run(directory).latest.step,  # type: ignore[union-attr]
        "looks from beside (ls, verify, judge, pin)": watched["looks"],
        "as the undisturbed run, byte for byte": last["weights"] == alone["weights"],
        "most memory, killed and undisturbed, MB": f"{last['memory'] >> 10} and {alone['memory'] >> 10}",
        "problems": [*watched["problems"], *_leftovers(directory), *last["leaks"]],
    }


def _killed(context: Any, folder: Path, epochs: int, rng: random.Random) -> bool:
    """One life: whether it ended by our hand, not by itself."""
    full = (rng.uniform(0, 3), rng.uniform(0.05, 1)) if rng.random() < 0.25 else None
    process = _run(context, folder / "killed.json", folder / "run", epochs, full)
    process.join(rng.uniform(0.3, 6))
    if process.exitcode is None:
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    if process.exitcode not in (0, -signal.SIGKILL):
        raise SystemExit(f"a life ended with exit code {process.exitcode}")
    return process.exitcode != 0


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
    _, module = train_lightning(directory, epochs, **OPTIONS)
    leaks = [f"thread {one.name}" for one in set(threading.enumerate()) - threads if one.name.startswith("ckpt")]
    more = len(os.listdir("/proc/self/fd")) - descriptors
    report.write_text(
        json.dumps(
            {
                "weights": [value.numpy().tobytes().hex() for value in module.state_dict().values()],
                "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
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
    looks, problems = 0, set()
    while not over.wait(0.05):
        try:
            run = Run(directory)
            problems |= {str(problem) for problem in run.verify().problems}
            run.verdict()
            if (latest := run.latest) is not None and looks % 5 == 0:
                run.unpin(run.pin(latest.id).id)
            looks += 1
        except CheckpointError:  # no run yet, or the snapshot was deleted between two looks
            continue
    report.write_text(json.dumps({"looks": looks, "problems": sorted(problems)}))


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
