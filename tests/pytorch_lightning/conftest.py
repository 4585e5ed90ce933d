"""A tiny module, its data and a quiet trainer, for tests that need no process of their own."""

from __future__ import annotations

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Tiny(pl.LightningModule):
    """One linear layer with dropout; logs val_loss. Any hyperparameter is saved."""

    def __init__(self, width: int = 3, anything: object = None) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layer = nn.Sequential(nn.Dropout(0.2), nn.Linear(width, 1))

    def _loss(self, batch):
        x, y = batch
        return nn.functional.mse_loss(self.layer(x), y)

    def training_step(self, batch, batch_idx):
        return self._loss(batch)

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self._loss(batch))

    def test_step(self, batch, batch_idx):
        self.log("test_loss", self._loss(batch))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.1)


def loader(shuffle: bool = True) -> DataLoader:
    data = torch.Generator().manual_seed(0)
    x = torch.randn(12, 3, generator=data)
    return DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=4, shuffle=shuffle)


def fit(
    callback, *, epochs: int = 2, module: pl.LightningModule | None = None, ckpt_path=None, seed=0, data=None, **options
):
    """Train a `Tiny` for some epochs of three batches; give the trainer and the module."""
    pl.seed_everything(seed, verbose=False)
    module = module or Tiny()
    callbacks = [*options.pop("callbacks", []), *([callback] if callback is not None else [])]
    trainer = pl.Trainer(
        max_epochs=epochs,
        callbacks=callbacks,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        **({"enable_checkpointing": callback is not None} | options),
    )
    trainer.fit(module, loader() if data is None else data, loader(shuffle=False), ckpt_path=ckpt_path)
    return trainer, module


def same(a: pl.LightningModule, b: pl.LightningModule) -> bool:
    """Whether two modules have the same weights, bit for bit."""
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.fixture(autouse=True)
def _quiet():
    torch.set_num_threads(1)
