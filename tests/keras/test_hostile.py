"""A state with right digests that no program has ever saved: a clean error, or a training that runs."""

from __future__ import annotations

import pytest

from ckpt_callbacks import Run, every_steps, keep_last
from ckpt_callbacks.keras import Checkpointer
from tests.hostile import attack
from tests.keras.test_callback import Remembers, fit

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory):
    """One, amid an epoch."""
    directory = tmp_path_factory.mktemp("intact") / "run"
    fit(Checkpointer(directory, save=every_steps(5), keep=keep_last(1)), Remembers())
    return Run(directory).latest


def test_keras_gets_an_error_of_ours_or_trains(snapshot, tmp_path):
    """Wherever the state is wrong, the error names the snapshot; nothing else is raised."""
    attack(
        snapshot,
        tmp_path,
        lambda run, forged: fit(Checkpointer(run, resume=str(forged)), Remembers(), epochs=3),
        times=12,
    )
