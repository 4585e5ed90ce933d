"""``make deciding``: what deciding costs, in a run of thousands: judging all, listing, and what is judged after a save.

    python -m benchmarks.deciding

Times are of the processor, in milliseconds; of several tries the best, because other programs make them only longer.
"""

from __future__ import annotations

import argparse
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
    print(f"{f'judge {count:,} / a save among the first, the last tenth of {saves:,}':66} {'all':>8} {'first':>8} {'last':>8}")
    for policy in POLICIES:
        rules = resolve_rules(policy, ())
        first, last = after_saves(rules, saves)
        print(f"{', '.join(map(repr, rules))[:66]:66} {judging(rules, count):8.2f} {first:8.3f} {last:8.3f}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        cold, warm = listing(Path(folder), listed)
    print(f"list {listed:,} snapshots on a disk: {cold:.1f} by a new process' eyes, {warm:.1f} again")
    return 0


def records(count: int) -> list[Record]:
    """The snapshots of a run, one a training minute."""
    rng = random.Random(0)  # noqa: S311
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
    """As `ckpt ls` does it, and once more with what is known."""
    Loop(checkpointer(folder, save=every_steps(1), keep=keep_all(), durability="none")).run(count)
    run = Run(folder / "run")
    return best(lambda: Run(folder / "run").snapshots()), best(run.snapshots)


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
