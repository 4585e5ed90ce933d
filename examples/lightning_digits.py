"""Digits with PyTorch Lightning. Kill it anywhere and run it again: it ends with the same weights.

python -m examples.lightning_digits runs/lightning
python -m examples.lightning_digits runs/compare --callback ModelCheckpoint     # Lightning's own, for comparison
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import warnings
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from ckpt_callbacks import every_epochs, every_steps, on_best, on_end
from ckpt_callbacks.pytorch_lightning import Checkpointer
from examples import digits


class Net(pl.LightningModule):
    """A small convolutional network with dropout, AdamW and a cosine schedule over steps."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU()),
            *(nn.MaxPool2d(2), nn.Dropout(0.25), nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Dropout(0.5)),
            nn.Linear(64, 10),
        )

    def training_step(self, batch, batch_idx):
        """Give the loss of one batch."""
        return self._loss("train", batch)

    def validation_step(self, batch, batch_idx):
        """Log ``val_loss`` and ``val_acc``."""
        self._loss("val", batch)

    def test_step(self, batch, batch_idx):
        """Log ``test_loss`` and ``test_acc``."""
        self._loss("test", batch)

    def _loss(self, stage, batch):
        images, labels = batch
        logits = self.net(images)
        loss = nn.functional.cross_entropy(logits, labels)
        self.log(f"{stage}_loss", loss, prog_bar=True)
        self.log(f"{stage}_acc", (logits.argmax(1) == labels).float().mean(), prog_bar=stage != "train")
        return loss

    def configure_optimizers(self):
        """AdamW, and a learning rate that falls along a cosine, step by step."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=3e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.trainer.estimated_stepping_batches)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Steps(pl.Callback):
    """Prints each finished step, so that `examples.demo` knows when to strike."""

    def on_train_batch_end(self, trainer, *_):
        """Print the step."""
        print(f"step {trainer.global_step}", flush=True)


def loaders() -> list[DataLoader]:
    """Train, validation and test loaders."""
    sets = [TensorDataset(torch.from_numpy(x).permute(0, 3, 1, 2), torch.from_numpy(y)) for x, y in digits.load()]
    return [DataLoader(one, batch_size=32, shuffle=index == 0) for index, one in enumerate(sets)]


def sha256(model: nn.Module) -> str:
    """Digest of all weights, bit for bit, in the order of their names."""
    digest = hashlib.sha256()
    for _, tensor in sorted(model.state_dict().items()):
        digest.update(tensor.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def main() -> None:
    """Train, then print what came of it as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--callback", choices=["Checkpointer", "ModelCheckpoint", "none"], default="Checkpointer")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", module=".*pytorch_lightning.*")
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.ERROR)
    torch.set_num_threads(1)

    pl.seed_everything(7, verbose=False)
    train, val, test = loaders()
    model = Net()

    ckpt_path = None
    callbacks: list[pl.Callback] = [Steps()]
    if options.callback == "Checkpointer":
        ckpt = Checkpointer(
            options.directory,
            monitor="val_loss",
            save=every_steps(20) | every_epochs(1) | on_best() | on_end(),
        )
        callbacks.append(ckpt)
    elif options.callback == "ModelCheckpoint":
        callbacks.append(pl.callbacks.ModelCheckpoint(options.directory, every_n_train_steps=20, filename="{step}"))
        ckpt_path = next(options.directory.glob("*.ckpt"), None)

    trainer = pl.Trainer(
        max_epochs=digits.EPOCHS,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=options.callback != "none",
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, train, val, ckpt_path=ckpt_path)

    result = {"sha256": sha256(model)}
    if options.callback == "Checkpointer":
        [scores] = trainer.test(dataloaders=test, ckpt_path="best", verbose=False)
        result |= {"best_step": ckpt.best.step, "best": ckpt.best.metrics["val_loss"], "accuracy": scores["test_acc"]}
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
