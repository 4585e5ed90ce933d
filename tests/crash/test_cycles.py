"""A run that dies again and again is in the end like one that never did: nothing accumulates."""

from __future__ import annotations

from concurrent.futures import Executor

from tests.crash.cycles import Outcome, cycled
from tests.crash.trials import in_memory

CYCLES = 40


def some_cycles(seed: int) -> Outcome:
    """One run."""
    with in_memory() as scratch:
        return cycled(scratch, CYCLES, seed)


def test_nothing_accumulates(elsewhere: Executor) -> None:
    """Names, counts and bytes of all files but the journal are those of the run that nobody disturbed."""
    outcome = elsewhere.submit(some_cycles, 0).result()
    assert outcome.deaths.total() > CYCLES // 2
    assert outcome.ends == outcome.undisturbed
