"""Killed anywhere by SIGKILL and started again, a Lightning run ends with the bytes of the run that never was.

Everything is compared: weights, optimizers, schedulers, counters, random generators, and what each epoch logged.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.jobs import lightning_jobs
from tests.jobs.lightning_jobs import JOBS
from tests.processes import KILLED, run

PLAIN = "shuffle, dropout, schedule per step"

# Hook and which call of it dies. An epoch has 7 batches, a validation 3.
PLACES = {
    "mid-epoch": ("on_train_batch_end", 12),
    "first batch of an epoch": ("on_train_batch_end", 8),
    "before the first batch of an epoch": ("on_train_epoch_start", 2),
    "last batch of an epoch": ("on_train_batch_end", 14),
    "inside validation": ("on_validation_batch_start", 6),
    "end of an epoch": ("on_train_epoch_end", 2),
    "end of fit": ("on_train_end", 1),
    "during a save": ("save", 14),
}


def train(tmp_path: Path, name: str, result: str, kill=None, **options) -> int:
    """Run a job in a process of its own."""
    args = (name, str(tmp_path / "run"), str(tmp_path / result), kill)
    return run(lightning_jobs.train, *args, options=options, log=tmp_path / "log.txt", preload=("pytorch_lightning",))


def result(tmp_path: Path, name: str) -> dict[str, bytes]:
    """Everything a finished job left, as bytes."""
    with np.load(tmp_path / f"{name}.npz") as arrays:
        return {key: arrays[key].tobytes() for key in arrays.files}


def logged(tmp_path: Path, name: str) -> list[str]:
    """What each epoch of a finished job logged, bit for bit."""
    return json.loads((tmp_path / f"{name}.json").read_text())


def resumed(tmp_path: Path, name: str) -> bool:
    """Whether a finished job carried on from a snapshot: from scratch, equal bytes would be no merit of ours."""
    return int((tmp_path / f"{name}.resumed").read_text()) > 0


def check(tmp_path: Path, name: str, reference: tuple[dict[str, bytes], list[str]]) -> None:
    """A resumed job has the reference's bytes, and logged what it did in each epoch that it ended."""
    expected, log = reference
    assert resumed(tmp_path, name)
    assert result(tmp_path, name) == expected
    assert logged(tmp_path, name) == log[-len(logged(tmp_path, name)) :]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The reference of each job: trained once, to its end, without our callback."""
    cache: dict[str, tuple[dict[str, bytes], list[str]]] = {}

    def reference(name: str) -> tuple[dict[str, bytes], list[str]]:
        if name not in cache:
            path = tmp_path_factory.mktemp("reference")
            train(path, name, "reference", checkpoint=False)
            cache[name] = result(path, "reference"), logged(path, "reference")
        return cache[name]

    return reference


@pytest.mark.parametrize("place", PLACES)
def test_killed_at_any_place(tmp_path, uninterrupted, place):
    """Wherever the first process died, the second ends with the reference's bytes - also if seeded otherwise."""
    assert train(tmp_path, PLAIN, "killed", PLACES[place]) == KILLED
    assert train(tmp_path, PLAIN, "resumed", seed=99) == 0
    check(tmp_path, "resumed", uninterrupted(PLAIN))
    assert "resume diverged" not in (tmp_path / "log.txt").read_text()


# A mechanism -> the job that can't do without it.
NEEDED_BY = {"replay": PLAIN, "random state": PLAIN, "attributes": "state in plain attributes of the module"}


@pytest.mark.parametrize("mechanism", lightning_jobs.SWITCHES)
def test_the_tests_above_can_fail(tmp_path, uninterrupted, mechanism):
    """Negative control: with one mechanism switched off, the bytes must differ."""
    name = NEEDED_BY[mechanism]
    assert train(tmp_path, name, "killed", PLACES["mid-epoch"], background=False) == KILLED
    assert train(tmp_path, name, "resumed", without=mechanism, seed=99) == 0
    assert resumed(tmp_path, "resumed")
    assert result(tmp_path, "resumed") != uninterrupted(name)[0]


@pytest.mark.parametrize("name", [name for name in JOBS if name != PLAIN])
def test_every_way_to_train(tmp_path, uninterrupted, name):
    """Each kind of job, killed in its second epoch, ends with the reference's bytes."""
    assert train(tmp_path, name, "killed", ("on_train_batch_end", 12), background=False) == KILLED
    assert train(tmp_path, name, "resumed", seed=99) == 0
    check(tmp_path, "resumed", uninterrupted(name))
    assert "resume diverged" not in (tmp_path / "log.txt").read_text()


@pytest.mark.parametrize("name", JOBS)
def test_the_callback_changes_nothing(tmp_path, uninterrupted, name):
    """A run with the callback that is never killed has the bytes of the run without it."""
    assert train(tmp_path, name, "watched") == 0
    assert (result(tmp_path, "watched"), logged(tmp_path, "watched")) == uninterrupted(name)


def test_killed_again_and_again(tmp_path, uninterrupted):
    """A run that is preempted after every sixth batch still arrives, and where it should."""
    deaths = 0
    while train(tmp_path, PLAIN, "resumed", ("on_train_batch_end", 6), background=False) == KILLED:
        deaths += 1
        assert deaths < 20, "the run makes no progress"
    assert deaths >= 4
    check(tmp_path, "resumed", uninterrupted(PLAIN))
    verified = re.findall(r"resume verified: (\d+) steps? identical\n", (tmp_path / "log.txt").read_text())
    assert len(verified) >= 3
