"""``make crash``: a process killed at every file-system call of every operation, and the power cut at every one; then
1,000 crash-resume cycles. It prints what was tried; whatever does not hold ends it with the reason.

The tests do the same with fewer states and cycles (tests/crash says how all of it works).
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import sys
import time
from collections import Counter

from tests.crash.cycles import cycled
from tests.crash.operations import OPERATIONS, OTHER_WAYS
from tests.crash.trials import Trial, in_memory

CYCLES_OF_A_RUN = 50
WITHOUT_FSYNC = "save without fsync"


def main() -> int:
    """Try everything, and print counts."""
    parser = argparse.ArgumentParser(prog="benchmarks.crash", description=__doc__)
    parser.add_argument("--states", type=int, default=500, help="power cuts of each operation, beside the least")
    parser.add_argument("--cycles", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lanes", type=int, default=2, help="processes at a time")
    arguments = parser.parse_args()
    operations = {**OPERATIONS, **OTHER_WAYS}
    with multiprocessing.get_context("spawn").Pool(arguments.lanes) as pool:
        tried = pool.imap(_tried, [(name, arguments.states, arguments.seed) for name in operations])
        total: Counter[str] = Counter()
        for name, (counts, seconds) in zip(operations, tried, strict=True):
            total += counts
            print(f"{name:26} {_shown(counts)}, {seconds:.0f} s", flush=True)
        print(f"{'all operations':26} {_shown(total)}", flush=True)
        began, runs = time.monotonic(), range(max(1, arguments.cycles // CYCLES_OF_A_RUN))
        cycles = pool.starmap(_cycled, [(arguments.seed + run,) for run in runs], chunksize=1)
    deaths = sum(map(Counter, cycles), Counter[str]())
    shown = ", ".join(f"{count} in {name}" for name, count in deaths.most_common())
    print(f"{len(runs) * CYCLES_OF_A_RUN:,} cycles of {len(runs)} runs: {deaths.total():,} deaths ({shown}),")
    print(f"each run ends as one that nobody disturbed, file by file, {time.monotonic() - began:.0f} s")
    return 0


def _tried(what: tuple[str, int, int]) -> tuple[Counter[str], float]:
    """Kill one operation and cut its power everywhere."""
    name, count, seed = what
    began = time.monotonic()
    with in_memory() as scratch:
        trial = Trial({**OPERATIONS, **OTHER_WAYS}[name], scratch / "trial")
        assert not trial.unseen, trial.unseen
        deaths = list(trial.deaths())
        for death in deaths:
            trial.kill(death)
        states = [] if name == WITHOUT_FSYNC else trial.some_states(random.Random(f"{name} {seed}"), count)
        for state, reported in states:
            trial.cut(state, reported)
    calls = len({death[:2] for death in deaths})
    return Counter(calls=calls, kills=len(deaths), power=len(states)), time.monotonic() - began


def _cycled(seed: int) -> Counter[str]:
    """Put one run through its cycles."""
    with in_memory() as scratch:
        outcome = cycled(scratch, CYCLES_OF_A_RUN, seed)
    assert outcome.ends == outcome.undisturbed, f"seed {seed}: {outcome.ends} is not {outcome.undisturbed}"
    return outcome.deaths


def _shown(counts: Counter[str]) -> str:
    return f"{counts['calls']:,} calls, {counts['kills']:,} kills, {counts['power']:,} states after a power cut"


if __name__ == "__main__":
    sys.exit(main())
