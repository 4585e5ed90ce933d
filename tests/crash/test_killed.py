"""Killed before, amid and after every call that changes something: nothing is lost, and the same command carries on."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import Executor, ProcessPoolExecutor

import pytest

from ckpt_callbacks.store import LocalStore
from tests.crash.operations import OPERATIONS
from tests.crash.trials import Trial, in_memory


def killed_everywhere(name: str) -> tuple[int, int]:
    """Try one operation; how many calls it makes, and in how many places it died."""
    with in_memory() as scratch:
        trial = Trial(OPERATIONS[name], scratch / "trial")
        deaths = list(trial.deaths())
        for death in deaths:
            trial.kill(death)
        return len({death[:2] for death in deaths}), len(deaths)


@pytest.mark.parametrize("name", OPERATIONS)
def test_killed_anywhere_nothing_is_lost(elsewhere: Executor, name: str) -> None:
    """What was committed stays, bit for bit; carried on, the run ends as one that nobody killed: bits, files, names."""
    calls, deaths = elsewhere.submit(killed_everywhere, name).result()
    assert deaths >= 2 * calls > 0


def without_cleaning(name: str) -> tuple[int, int]:
    """The same, with nobody to clean up."""
    LocalStore.clean = lambda self: []  # type: ignore[method-assign]
    return killed_everywhere(name)


def test_without_cleaning_something_would_be_left() -> None:
    """So these tests can fail."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        failed = executor.submit(without_cleaning, "demote")
        with pytest.raises(AssertionError):
            failed.result()
