"""``make fuzz``: many more broken inputs than the tests try, under a limit of memory; guided by coverage with atheris.

Every reader of files gets inputs that were intact before some bytes were changed, removed, doubled, or replaced by
words of the format. It must refuse them by an error of ours, or read them right; nothing may need more than 4 GiB.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import multiprocessing
import random
import resource
import subprocess
import sys
import time
import warnings

from tests.fuzzing import TARGETS, mutated

MEMORY = 4 << 30
"""Bytes that a process may have: a header that asks for more must be refused before it is believed."""


GUIDED = 10
"""Inputs that are guided by coverage take so many times as long."""


def main() -> int:
    """Try all targets, and print how many inputs were tried, accepted and refused."""
    parser = argparse.ArgumentParser(prog="benchmarks.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=50_000, help="for each reader; less for those that cost more")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--atheris", metavar="TARGET", choices=[*TARGETS], help="one reader, guided by coverage")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    if arguments.atheris:
        return _guided(arguments.atheris, arguments.inputs)
    with multiprocessing.Pool() as pool:
        counts = {name: arguments.inputs // target.cost for name, target in TARGETS.items()}
        found = pool.starmap(_tried, [(name, count, arguments.seed) for name, count in counts.items()])
    for (name, count), (accepted, seconds) in zip(counts.items(), found, strict=True):
        tried = f"{count:,} inputs, {accepted:,} read right, {count - accepted:,} refused"
        print(f"{name:19} {tried}, {seconds:.0f} s")
    return _all_guided(arguments.inputs // GUIDED)


def _tried(name: str, inputs: int, seed: int) -> tuple[int, float]:
    rng, target, accepted, began = random.Random(f"{name} {seed}"), TARGETS[name], 0, time.monotonic()
    for _ in range(inputs):
        broken = target.mutate(rng.choice(target.intact), rng)
        try:
            accepted += target.read(broken)
        except BaseException as error:
            raise AssertionError(f"{name}: {broken!r}: {error!r}") from error
    return accepted, time.monotonic() - began


def _all_guided(inputs: int) -> int:
    """The same readers, each in a process of its own, with inputs that coverage chooses."""
    if importlib.util.find_spec("atheris") is None:
        print("guided by coverage: no, as atheris is not installed (pip install 'ckpt_callbacks[fuzz]')")
        return 0
    for name, target in TARGETS.items():
        count = str(inputs // target.cost)
        command = [sys.executable, "-m", "benchmarks.fuzz", "--atheris", name, "--inputs", count]
        done = subprocess.run(command, capture_output=True, text=True)
        print(f"{name:19} {count} inputs guided by coverage: {'no error' if done.returncode == 0 else 'FAILED'}")
        if done.returncode:
            print(done.stderr[-4000:])
            return 1
    return 0


def _guided(name: str, inputs: int) -> int:
    import atheris

    target = TARGETS[name]

    def mutate(data: bytes, size: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if target.mutate is not mutated:  # what it breaks must be whole before
            return target.mutate(rng.choice(target.intact), rng)[:size]
        return mutated(data if len(data) > 8 and rng.random() < 0.8 else rng.choice(target.intact), rng)[:size]

    atheris.instrument_all()
    options = [sys.argv[0], f"-runs={inputs}", "-max_len=8192"]
    atheris.Setup(options, lambda data: target.read(data) and None, custom_mutator=mutate)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
