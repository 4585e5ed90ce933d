"""What the golden snapshots were taken of. Never change these: the snapshots in this folder must load for ever."""

from __future__ import annotations

from collections import OrderedDict, deque
from pathlib import Path
from typing import Any

import numpy as np

from ckpt_callbacks.checkpointer import BaseCheckpointer
from ckpt_callbacks.engine import Event, Progress
from ckpt_callbacks.state.captured import Captured

STEPS = 6


def train_plain(directory: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """A run without a framework that holds every kind of value; gives weights and the rest as they were."""
    weights = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "h": np.arange(4, dtype=np.float16)}
    rest = {
        "step": 3,
        "text": "grüße",
        "none": None,
        "flags": (True, False),
        "numbers": [1, 2**70, 0.1, float("inf"), 1 + 2j],
        "ordered": OrderedDict([("b", 1), ("a", 2)]),
        "queue": deque([1, 2, 3], maxlen=5),
        "odd keys": {1: "one", (2, 3): "pair"},
        "bytes": b"\x00\xff",
        "array": np.arange(5, dtype=np.int64),
        "big endian": np.arange(3, dtype=">f4"),
        "a set": {3, 1, 2},
    }
    checkpointer = BaseCheckpointer(directory, monitor="loss", durability="none")
    checkpointer.begin({})
    checkpointer.boundary(Progress(3, 1, 0, 3), Event.EPOCH_END, {"loss": 0.5}, lambda: Captured(weights, rest))
    checkpointer.end()
    return weights, rest


def train_lightning(directory: Path, epochs: int, **options: Any) -> tuple[Any, Any]:
    """Two layers, dropout, Adam and a schedule; gives the callback and the module."""
    import pytorch_lightning as pl
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    from ckpt_callbacks.pytorch_lightning import Checkpointer

    class Golden(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Dropout(0.2), torch.nn.Linear(4, 1))

        def training_step(self, batch: Any, index: int) -> Any:
            loss = (self.layers(batch[0]) - batch[1]).square().mean()
            self.log("loss", loss)
            return loss

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.Adam(self.parameters(), 0.1)
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.9)]

    pl.seed_everything(3, verbose=False)
    x = torch.arange(18.0).reshape(6, 3) / 18
    data = DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=2, shuffle=True)
    callback = Checkpointer(directory, durability="none", **options)
    silent = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    module = Golden()
    pl.Trainer(max_epochs=epochs, callbacks=[callback], log_every_n_steps=1, **silent).fit(module, data)
    return callback, module


def train_keras(directory: Path, epochs: int, **options: Any) -> tuple[Any, Any]:
    """The same with Keras; gives the callback and the model."""
    import keras

    from ckpt_callbacks.keras import Checkpointer

    keras.utils.set_random_seed(3)
    layers = [keras.layers.Dense(4), keras.layers.Dropout(0.2), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((3,)), *layers])
    model.compile(keras.optimizers.Adam(0.1), "mse")
    x = np.arange(18, dtype=np.float32).reshape(6, 3) / 18
    callback = Checkpointer(directory, durability="none", **options)
    model.fit(x, x.sum(1, keepdims=True), batch_size=2, epochs=epochs, verbose=0, callbacks=[callback])
    return callback, model
