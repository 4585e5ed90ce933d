"""``make deciding``: what deciding costs, in a run of thousands: judging all, listing, and what is judged after a save.

    python -m benchmarks.deciding

Of the saves, one after another, the mean of the first tenth and of the last tenth is shown: what they cost may grow
with what a rule keeps, never with what the run has saved. Times are of the processor, in milliseconds; of several tries
the best, because other programs make them only longer.
"""

from __future__ import annotations

import argparse
import gc
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ckpt_callbacks import (
    Monitor,
    Progress,
    Run,
    every_steps,
    keep_all,
    keep_best,
    keep_every_steps,
    keep_last,
    keep_log_spaced,
    keep_tiers,
    keep_when,
    keep_within,
    weights_after,
)
from ckpt_callbacks.engine import Docket, Record, Rule, judge, resolve_rules
from tests.loop import Loop, checkpointer

LOSS = Monitor("val_loss")


def even(record: Record) -> bool:
    """A function of a user's."""
    return record.step % 20 == 0


POLICIES: Sequence[Sequence[Rule]] = (
    [keep_last(2), keep_best(1, LOSS)],
    [keep_all()],
    [keep_all(), weights_after(3)],
    [keep_within("1 TB")],
    [keep_within("1 MB")],
    [keep_within("5 MB"), keep_best(5, LOSS), keep_best(5, Monitor("val_loss", "max"))],
    [keep_when(even), keep_last(1)],
    [keep_last(1000)],
    [keep_best(1000, LOSS)],
    [keep_tiers({"1m": 1000})],
    [
        *(keep_last(3), keep_best(2, LOSS), keep_tiers(), keep_log_spaced(), keep_every_steps(1000)),
        *(keep_within("5 MB"), weights_after(5)),
    ],
)


def main() -> int:
    """Measure all of it, and print a table."""
    parser = argparse.ArgumentParser(prog="benchmarks.deciding", description=__doc__)
    parser.add_argument("--snapshots", type=int, default=10_000, help="that are judged at once")
    parser.add_argument("--saves", type=int, default=5_000, help="one after another")
    parser.add_argument("--listed", type=int, default=1_000, help="that lie on a disk")
    arguments = parser.parse_args()
    count, saves, listed = arguments.snapshots, arguments.saves, arguments.listed
    print(f"{'':60}{f'judge {count:,}':>14}{'first saves':>14}{'last saves':>14}")
    for policy in POLICIES:
        rules = resolve_rules(policy, ())
        times = judging(rules, count), *after_saves(rules, saves)
        print(f"{', '.join(map(repr, rules))[:58]:60}" + "".join(f"{one:14.3f}" for one in times), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        cold, warm = listing(Path(folder), listed)
    print(f"list {listed:,} snapshots: {cold:.1f} with every manifest read, {warm:.1f} again")
    return 0


def records(count: int) -> list[Record]:
    """The snapshots of a run, one a training minute."""
    rng = random.Random(0)
    return [
        Record(
            *(f"{n * 10:09d}", n, Progress(n * 10, n // 5, 0, n * 10)),
            metrics={"val_loss": rng.random()},
            elapsed=n * 60.0,
            size=1000,
        )
        for n in range(1, count + 1)
    ]


def judging(rules: Sequence[Rule], count: int) -> float:
    """All at once."""
    there = records(count)
    return best(lambda: judge(there, rules))


def after_saves(rules: Sequence[Rule], count: int) -> tuple[float, float]:
    """What is judged after a save: the mean of the first and of the last tenth."""
    docket, times = Docket(rules), []
    for record in records(count):
        begin = time.process_time()
        for id in docket.judge(record).demote:
            docket.reduced(id, 300)
        times.append(1000 * (time.process_time() - begin))
    tenth = max(1, count // 10)
    return sum(times[:tenth]) / tenth, sum(times[-tenth:]) / tenth


def listing(folder: Path, count: int) -> tuple[float, float]:
    """With every manifest read, as `ckpt ls` does it, and with those in memory that did not change."""
    Loop(checkpointer(folder, save=every_steps(1), keep=keep_all(), durability="none")).run(count)
    gc.collect()  # what a process knows of a run, it knows as long as somebody looks at it
    cold = best(lambda: Run(folder / "run").snapshots())
    run = Run(folder / "run")
    run.snapshots()
    return cold, best(run.snapshots)


def best(call: Callable[[], object], tries: int = 5) -> float:
    """Milliseconds of the processor that a call takes, at best."""
    times = []
    for _ in range(tries):
        begin = time.process_time()
        call()
        times.append(1000 * (time.process_time() - begin))
    return min(times)


if __name__ == "__main__":
    sys.exit(main())
