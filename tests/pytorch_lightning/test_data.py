"""Whatever way the data come: killed in an epoch's middle and started again, a run ends with the same bytes."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset

from ckpt_callbacks import every_steps
from ckpt_callbacks.pytorch_lightning import Checkpointer
from tests.jobs import lightning_data_jobs
from tests.jobs.lightning_data_jobs import JOBS
from tests.processes import KILLED, run
from tests.pytorch_lightning.conftest import Tiny
from tests.pytorch_lightning.test_exact_resume import check, logged, result, resumed

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")

# What is not exact without one of the mechanisms.
CONTROLS = {
    "splices": "batch sampler that draws as it goes",
    "stamps": "persistent workers",
    "attributes": "batch sampler that counts its epochs",
}


def train(tmp_path: Path, name: str, result: str, kill=None, **options) -> int:
    """Run a job in a process of its own."""
    args = (name, str(tmp_path / "run"), str(tmp_path / result), kill)
    return run(
        lightning_data_jobs.train, *args, options=options, log=tmp_path / "log.txt", preload=("pytorch_lightning",)
    )


def killed(tmp_path: Path, name: str) -> None:
    """Run a job until it dies."""
    assert train(tmp_path, name, "killed", ("on_train_batch_end", 11), background=False) == KILLED


@pytest.mark.parametrize("name", JOBS)
def test_every_way_that_data_come(tmp_path, name):
    """Killed in its second epoch and seeded otherwise, each job ends with the bytes of the run without our callback."""
    assert train(tmp_path, name, "reference", checkpoint=False) == 0
    killed(tmp_path, name)
    assert train(tmp_path, name, "resumed", seed=99) == 0
    check(tmp_path, "resumed", (result(tmp_path, "reference"), logged(tmp_path, "reference")))
    assert json.loads((tmp_path / "resumed.missing").read_text()) == {}


@pytest.mark.parametrize("mechanism", CONTROLS)
def test_the_test_above_can_fail(tmp_path, mechanism):
    """Negative control: with one mechanism switched off, the bytes must differ."""
    name = CONTROLS[mechanism]
    assert train(tmp_path, name, "reference", checkpoint=False) == 0
    killed(tmp_path, name)
    assert train(tmp_path, name, "resumed", seed=99, without=mechanism) == 0
    assert resumed(tmp_path, "resumed")
    assert result(tmp_path, "resumed") != result(tmp_path, "reference")


class Looked(Dataset):
    """Counts how often it is read, in whatever process."""

    def __init__(self):
        self.reads = multiprocessing.get_context("fork").Value("i", 0)

    def __len__(self):
        return 4000

    def __getitem__(self, index):
        with self.reads.get_lock():
            self.reads.value += 1
        return torch.full((3,), index / 4000), torch.zeros(1)


class StopAt(pl.Callback):
    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.step:
            raise KeyError("enough")


@pytest.mark.parametrize("options", [{}, {"num_workers": 2}, {"num_workers": 2, "persistent_workers": True}])
def test_batches_are_skipped_and_not_loaded(tmp_path, options):
    """Late in an epoch, a resume reads only what is left of it."""

    def fit(callback, *callbacks):
        data = Looked()
        loader = DataLoader(data, 4, shuffle=True, **options)
        pl.seed_everything(3, verbose=False)
        trainer = pl.Trainer(
            max_epochs=1,
            callbacks=[callback, *callbacks],
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(Tiny(), loader)
        return data.reads.value

    with pytest.raises(KeyError, match="enough"):
        fit(Checkpointer(tmp_path / "run", save=every_steps(950)), StopAt(951))
    callback = Checkpointer(tmp_path / "run", save=every_steps(950))
    assert fit(callback) == 4 * 50
    assert (callback.resumed.step, callback.resumed.replayed) == (950, 0)
