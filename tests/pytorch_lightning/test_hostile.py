"""A state with right digests that no program has ever saved: a clean error, or a training that runs."""

from __future__ import annotations

import pytest
import pytorch_lightning as pl

from ckpt_callbacks import Run, every_steps, keep_last
from ckpt_callbacks.pytorch_lightning import Checkpointer
from tests.hostile import attack
from tests.pytorch_lightning.conftest import fit

pytestmark = pytest.mark.filterwarnings("ignore")


class Counts(pl.Callback):
    """A callback with a state, and attributes that change."""

    def __init__(self) -> None:
        self.seen, self.all = 0, []

    def on_train_batch_end(self, *_):
        self.seen += 1
        self.all.append(self.seen)

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state["seen"]


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory):
    """One, amid an epoch."""
    directory = tmp_path_factory.mktemp("intact") / "run"
    fit(Checkpointer(directory, save=every_steps(5), keep=keep_last(1)), callbacks=[Counts()])
    return Run(directory).latest


def test_lightning_gets_an_error_of_ours_or_trains(snapshot, tmp_path):
    """Wherever the state is wrong, the error names the snapshot; nothing else is raised, neither by Lightning."""
    attack(
        snapshot,
        tmp_path,
        lambda run, forged: fit(Checkpointer(run, resume=str(forged)), epochs=3, callbacks=[Counts()]),
        times=40,
    )
