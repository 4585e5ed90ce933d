"""Killed anywhere by SIGKILL and started again, a Keras run ends with the bytes of the run that never was.

Everything is compared: weights, seeds, optimizer, and the whole History.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.jobs import keras_jobs
from tests.jobs.keras_jobs import JOBS
from tests.processes import KILLED, run

PLAIN = "arrays, shuffle, dropout"

# Hook and which call of it dies. An epoch has 7 batches, a validation 3.
PLACES = {
    "mid-epoch": ("on_train_batch_end", 11),
    "first batch of an epoch": ("on_train_batch_end", 8),
    "before the first batch of an epoch": ("on_epoch_begin", 2),
    "last batch of an epoch": ("on_train_batch_end", 14),
    "inside validation": ("on_test_batch_begin", 5),
    "end of an epoch": ("on_epoch_end", 2),
    "end of fit": ("on_train_end", 1),
}

# What the plainest job gets on without, and a job that doesn't.
NEEDED_BY = {
    "iterations that were begun before": "tf.data, shuffled without a seed",
    "settings as they were traced": "a callback that changes an attribute of the model",
    "what the data remember": "PyDataset that shuffles itself and draws",
}


def train(tmp_path: Path, name: str, result: str, kill=None, **options) -> int:
    """Run a job in a process of its own."""
    args = (name, str(tmp_path / "run"), str(tmp_path / result), kill)
    return run(keras_jobs.train, *args, options=options, log=tmp_path / "log.txt", preload=("keras", "tensorflow"))


def result(tmp_path: Path, name: str) -> dict[str, bytes]:
    """Everything a finished job left, as bytes."""
    with np.load(tmp_path / f"{name}.npz") as arrays:
        found = {key: arrays[key].tobytes() for key in arrays.files}
    found["history"] = json.dumps(json.loads((tmp_path / f"{name}.json").read_text()), sort_keys=True).encode()
    return found


def resumed(tmp_path: Path, name: str) -> bool:
    """Whether a finished job carried on from a snapshot: from scratch, equal bytes would be no merit of ours."""
    return int((tmp_path / f"{name}.resumed").read_text()) > 0


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The reference of each job: trained once, to its end, without our callback."""
    cache: dict[str, dict[str, bytes]] = {}

    def reference(name: str) -> dict[str, bytes]:
        if name not in cache:
            path = tmp_path_factory.mktemp("reference")
            train(path, name, "reference", checkpoint=False)
            cache[name] = result(path, "reference")
        return cache[name]

    return reference


@pytest.mark.parametrize("place", PLACES)
def test_killed_at_any_place(tmp_path, uninterrupted, place):
    """Wherever the first process died, the second ends with the reference's bytes and the whole history."""
    assert train(tmp_path, PLAIN, "killed", PLACES[place]) == KILLED
    assert train(tmp_path, PLAIN, "resumed") == 0
    assert resumed(tmp_path, "resumed")
    assert result(tmp_path, "resumed") == uninterrupted(PLAIN)


@pytest.mark.parametrize("mechanism", keras_jobs.SWITCHES)
def test_the_tests_above_can_fail(tmp_path, uninterrupted, mechanism):
    """Negative control: with one mechanism switched off, the bytes must differ."""
    name = NEEDED_BY.get(mechanism, PLAIN)
    assert train(tmp_path, name, "killed", PLACES["mid-epoch"], background=False) == KILLED
    assert train(tmp_path, name, "resumed", without=mechanism) == 0
    assert resumed(tmp_path, "resumed")
    assert result(tmp_path, "resumed") != uninterrupted(name)


@pytest.mark.parametrize("name", [name for name in JOBS if name != PLAIN])
def test_every_way_to_train(tmp_path, uninterrupted, name):
    """Each kind of job, killed after its first epoch, ends with the reference's bytes.

    The reference trained without our callback, so this tells too that the callback changes nothing.
    """
    assert (
        train(tmp_path, name, "killed", ("on_train_batch_end", 6 if "execution" in name else 10), background=False)
        == KILLED
    )
    assert train(tmp_path, name, "resumed") == 0
    assert resumed(tmp_path, "resumed")
    assert result(tmp_path, "resumed") == uninterrupted(name)
    assert re.search(r"resume verified: \d+ steps? identical\n", (tmp_path / "log.txt").read_text())


@pytest.mark.parametrize("ours_first", [True, False])
def test_place_among_callbacks(tmp_path, uninterrupted, ours_first):
    """Our callback may stand before or after EarlyStopping: the same bytes, also when a complete run is run again."""
    name = "early stopping that restores the best weights"
    assert (
        train(tmp_path, name, "killed", ("on_train_batch_end", 10), ours_first=ours_first, background=False) == KILLED
    )
    for again in ("resumed", "run once more"):
        assert train(tmp_path, name, again, ours_first=ours_first) == 0
        assert resumed(tmp_path, again)
        assert result(tmp_path, again) == uninterrupted(name)


def test_the_callback_changes_nothing(tmp_path, uninterrupted):
    """A run with the callback that is never killed has the bytes of the run without it."""
    assert train(tmp_path, PLAIN, "watched") == 0
    assert result(tmp_path, "watched") == uninterrupted(PLAIN)
