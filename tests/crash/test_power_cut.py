"""The power is cut at any call: whatever a disk may have forgotten, what was reported as committed is there."""

from __future__ import annotations

import multiprocessing
import random
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path

import pytest

from ckpt_callbacks import CheckpointError, Run, keep_last
from ckpt_callbacks.store import LocalStore
from ckpt_callbacks.store.writing import DurableFiles
from tests.crash.operations import OPERATIONS
from tests.crash.training import train
from tests.crash.trials import Trial, in_memory

STATES = 40
"""How many states that a power cut may leave are tried, beside the least; `make crash` tries more."""


def cut_anywhere(name: str) -> int:
    """Try one operation; how many states were tried."""
    rng = random.Random(name)
    with in_memory() as scratch:
        trial = Trial(OPERATIONS[name], scratch / "trial")
        chosen = trial.some_states(rng, STATES)
        for state, reported in chosen:
            trial.cut(state, reported)
        return len(chosen)


@pytest.mark.parametrize("name", OPERATIONS)
def test_what_was_committed_survives(elsewhere: Executor, name: str) -> None:
    """Nothing that was reported is lost or broken; carried on, the run ends as one that kept its power."""
    assert elsewhere.submit(cut_anywhere, name).result() >= 2


def reopen(run: Path) -> None:
    """What every start begins with."""
    store = LocalStore(run)
    with store.lock():
        store.open()


def prune(run: Path) -> None:
    """Leave the newest only."""
    Run(run).prune(keep_last(1), dry_run=False)


def begin(run: Path) -> None:
    """Save for the first time."""
    train(run, 2)


def cut_after_a_death(name: str, then: Callable[[Path], object]) -> int:
    """Try one operation: killed, and the power cut while the next process works; how many states were tried."""
    rng = random.Random(name)
    with in_memory() as scratch:
        trial = Trial(OPERATIONS[name], scratch / "trial")
        names = {"replace", "rmdir", "mkdir", "link"}
        deaths = [death for call, death in trial.last_deaths() if call.name in names]
        return sum(trial.cut_after(death, then, rng, STATES // 8) for death in deaths)


@pytest.mark.parametrize(
    ("name", "then"),
    [
        *((name, reopen) for name in ("resume and save", "prune", "demote", "repair")),
        *((name, prune) for name in ("resume and save", "repair")),
        ("the first save", begin),
    ],
)
def test_nobody_builds_on_what_is_not_durable(elsewhere: Executor, name: str, then: Callable[[Path], object]) -> None:
    """A process is killed after a rename and before its fsync; the next one works on, and then the power is cut."""
    assert elsewhere.submit(cut_after_a_death, name, then).result() >= 2


def without_fsync_of(what: str, name: str) -> int:
    """The same as `cut_anywhere`, with a part of the protocol left out."""
    setattr(DurableFiles, what, lambda self, path: None)
    return cut_anywhere(name)


@pytest.mark.parametrize("name", ["resume and save", "prune", "demote"])
def test_without_fsync_of_directories_it_would_break(name: str) -> None:
    """So these tests can fail."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        failed = executor.submit(without_fsync_of, "sync_directory", name)
        with pytest.raises((AssertionError, CheckpointError)):
            failed.result()
