"""``make damage``: every byte of every file of a snapshot flipped, every file cut at every length, made longer, removed
and swapped; the same for ``run.json``. It prints what was tried; the first that does not hold ends it with the reason.

After each a full check names the file, a process that starts again carries on from the newest good snapshot, bit for
bit, and what is damaged lies aside, whole. Of a large file the first bytes are tried, and some hundred others.
The tests do the same with fewer bytes (tests/damage says how it works).
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections import Counter

from tests.crash.trials import in_memory
from tests.damage.trials import RUNS, Trial, quiet


def main() -> int:
    """Damage everything, and print counts."""
    parser = argparse.ArgumentParser(prog="benchmarks.damage", description=__doc__)
    parser.add_argument("--stride", type=int, default=1, help="only each so many-th byte")
    parser.add_argument("--lanes", type=int, default=2, help="processes at a time")
    arguments = parser.parse_args()
    began = time.monotonic()
    jobs = [(kind, name, arguments.stride) for kind in RUNS for name in _names(kind)]
    total: Counter[str] = Counter()
    with multiprocessing.get_context("spawn").Pool(arguments.lanes) as pool:
        try:
            for (kind, name, _), counts in zip(jobs, pool.imap(_tried, jobs), strict=True):
                total += counts
                print(f"{kind + ', ' + name:64} {_shown(counts)}", flush=True)
        except AssertionError as miss:
            print(f"NOT SO: {miss}")
            return 1
    print(f"{'all of it named, stepped over and kept':64} {_shown(total)}, {time.monotonic() - began:.0f} s")
    return 0


def _names(kind: str) -> list[str]:
    """The files of such a run that are damaged."""
    with quiet(), in_memory() as scratch:
        return Trial(kind, scratch).names


def _tried(job: tuple[str, str, int]) -> Counter[str]:
    """Damage one file, in every way."""
    kind, name, stride = job
    with quiet(), in_memory() as scratch:
        return Trial(kind, scratch, stride).survive_all(name)


def _shown(counts: Counter[str]) -> str:
    return f"{counts.total():,}: " + ", ".join(f"{count:,} {kind}" for kind, count in counts.most_common())


if __name__ == "__main__":
    sys.exit(main())
