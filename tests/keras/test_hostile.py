"""A state with right digests that no program has ever saved: a clean error, or a training that runs."""

from __future__ import annotations

import random
import shutil

import pytest

from ckpt_callbacks import CheckpointError, Run, every_steps, keep_last
from ckpt_callbacks.keras import Checkpointer
from tests.hostile import forged
from tests.keras.test_callback import Remembers, fit

pytestmark = pytest.mark.filterwarnings("ignore")

INPUTS = 12


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory):
    """One, amid an epoch."""
    directory = tmp_path_factory.mktemp("intact") / "run"
    fit(Checkpointer(directory, save=every_steps(5), keep=keep_last(1)), Remembers())
    return Run(directory).latest


def test_keras_gets_an_error_of_ours_or_trains(snapshot, tmp_path):
    """Wherever the state is wrong, the error names the snapshot; nothing else is raised."""
    errors = []
    for number in range(INPUTS):
        directory = tmp_path / str(number)
        forged(snapshot, directory, random.Random(f"hostile {number}"))
        try:
            fit(Checkpointer(directory, resume=str(directory / "snapshots" / snapshot.id)), Remembers(), epochs=3)
        except CheckpointError as error:
            errors.append(str(error))
        shutil.rmtree(directory)
    assert INPUTS // 4 < len(errors) < INPUTS
    assert all(snapshot.id in error for error in errors)
