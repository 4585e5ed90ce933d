"""Small training jobs for Lightning. Each `Job` is one way that people train; `train` runs it in its own process."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torchmetrics
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from ckpt_callbacks import every_steps, on_end
from ckpt_callbacks._torch_data.source import Source
from ckpt_callbacks.pytorch_lightning import Checkpointer
from ckpt_callbacks.state import random_state
from tests.processes import die

EPOCHS, BATCHES, BATCH_SIZE = 3, 7, 4


class Net(pl.LightningModule):
    """Dropout, batch norm and AdamW; logs a train mean over the epoch and a validation loss that draws numbers."""

    def __init__(self, schedule: str = "step", noisy_validation: bool = False) -> None:
        super().__init__()
        self.schedule, self.noisy_validation = schedule, noisy_validation
        self.net = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 1))

    def _loss(self, batch: Any) -> torch.Tensor:
        x, y = batch
        return nn.functional.mse_loss(self.net(x), y)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = self._loss(batch)
        self.log("train_loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        noise = torch.rand(()) if self.noisy_validation else 0.0
        self.log("val_loss", self._loss(batch) + 0.01 * noise)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.01)
        lr = torch.optim.lr_scheduler
        if self.schedule == "step":
            return {
                "optimizer": optimizer,
                "lr_scheduler": {"scheduler": lr.ExponentialLR(optimizer, 0.95), "interval": "step"},
            }
        if self.schedule == "epoch":
            return [optimizer], [lr.StepLR(optimizer, 1, 0.5)]
        if self.schedule == "onecycle":
            cycle = lr.OneCycleLR(optimizer, 0.05, total_steps=int(self.trainer.estimated_stepping_batches))
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": cycle, "interval": "step"}}
        monitor = self.schedule.removeprefix("plateau:")
        plateau = lr.ReduceLROnPlateau(optimizer, factor=0.5, patience=0, threshold=0.2)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": plateau, "monitor": monitor}}


class LogsOnce(Net):
    """Logs a metric in the first batch of each epoch only, and another in every batch, by their largest value."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = super().training_step(batch, batch_idx)
        if batch_idx == 0:
            self.log("first_loss", loss, on_step=False, on_epoch=True)
        self.log("largest_loss", loss, on_step=False, on_epoch=True, reduce_fx="max")
        return loss


class Measured(Net):
    """Logs a metric object, which sums up over the epoch by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.measure = torchmetrics.MeanSquaredError()

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        self.measure(self.net(batch[0]), batch[1])
        self.log("measure", self.measure, on_step=False, on_epoch=True)
        return super().training_step(batch, batch_idx)


class OwnNoise(Net):
    """Draws from a generator of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(5)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return super().training_step(batch, batch_idx) * (1 + 0.1 * torch.rand((), generator=self.generator))


class Gan(pl.LightningModule):
    """Manual optimization with two optimizers, one of which steps every other batch."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.a, self.b = nn.Linear(6, 1), nn.Sequential(nn.Dropout(0.2), nn.Linear(6, 1))

    def training_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        first, second = self.optimizers()
        loss = nn.functional.mse_loss(self.a(x), y)
        first.zero_grad()
        self.manual_backward(loss)
        first.step()
        self.manual_backward(nn.functional.mse_loss(self.b(x), self.a(x).detach()))
        if batch_idx % 2:
            second.step()
            second.zero_grad()
        self.log("train_loss", loss)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        self.log("val_loss", nn.functional.mse_loss(self.a(x) + self.b(x), y))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.a.parameters(), 0.05), torch.optim.Adam(self.b.parameters(), 0.01)


class Averaged(Net):
    """Changes weights in its own hook after each batch, and draws a random number to do so."""

    def on_train_batch_end(self, *_: Any) -> None:
        with torch.no_grad():
            self.net[0].weight.mul_(1 - 0.01 * torch.rand(()))


class Augmented(Dataset):
    """Draws from torch and numpy for each sample, in the workers where there are any."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Any:
        return self.x[index] + 0.1 * torch.randn(6) + 0.1 * float(np.random.rand()), self.y[index]


class Stream(IterableDataset):
    """No length, no index; shuffles as it goes."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor) -> None:
        self.x, self.y = x, y

    def __iter__(self) -> Any:
        for index in torch.randperm(len(self.x)).tolist():
            yield self.x[index], self.y[index]


@dataclass(frozen=True)
class Job:
    """A module and how it is trained."""

    module: Any = Net
    data: Any = TensorDataset
    loader: dict[str, Any] = field(default_factory=lambda: {"shuffle": True})
    loaders: Any = None  # x, y -> what fit gets, in place of one loader of `data`; or a datamodule
    trainer: dict[str, Any] = field(default_factory=dict)
    callbacks: Any = list
    validate: bool = True


JOBS: dict[str, Job] = {
    "shuffle, dropout, schedule per step": Job(),
    "two workers that augment": Job(data=Augmented, loader={"shuffle": True, "num_workers": 2}),
    "augmentation without workers": Job(data=Augmented),
    "schedule per epoch": Job(lambda: Net("epoch")),
    "one-cycle schedule": Job(lambda: Net("onecycle")),
    "plateau on the validation loss": Job(lambda: Net("plateau:val_loss")),
    "plateau on the epoch's mean train loss": Job(lambda: Net("plateau:train_loss_epoch"), validate=False),
    "metrics logged once an epoch, or as a maximum": Job(LogsOnce),
    "precision 64": Job(trainer={"precision": "64-true"}),
    "a torchmetrics object": Job(Measured),
    "a generator in the module": Job(OwnNoise),
    "gradient accumulation": Job(trainer={"accumulate_grad_batches": 3}),
    "manual optimization, two optimizers": Job(Gan),
    "weights changed in the module's own hook": Job(Averaged),
    "validation inside the epoch that draws": Job(
        lambda: Net(noisy_validation=True), trainer={"val_check_interval": 3}
    ),
    "stream without length": Job(data=Stream, loader={}),
    "early stopping": Job(
        callbacks=lambda: [pl.callbacks.EarlyStopping("val_loss", patience=0, min_delta=0.05)],
        trainer={"max_epochs": 9},
    ),
    "max_steps within an epoch": Job(trainer={"max_steps": 17, "max_epochs": -1}),
}


class KillAt(pl.Callback):
    """SIGKILL in the ``count``-th call of a hook."""

    def __init__(self, hook: str, count: int) -> None:
        self.left = count
        setattr(self, hook, self._called)

    def _called(self, *_: Any, **__: Any) -> None:
        self.left -= 1
        if self.left == 0:
            die()


def _no_replay() -> None:
    Source.return_to = lambda self, place: iter(self)  # type: ignore[method-assign, assignment]


def _no_random_state() -> None:
    random_state.restore = lambda state: None  # type: ignore[assignment]


SWITCHES = {"replay": _no_replay, "random state": _no_random_state}


def train(
    name: str | Job,
    directory: str,
    result: str,
    kill: tuple[str, int] | None = None,
    checkpoint: bool = True,
    seed: int = 1,
    without: str | None = None,
    background: bool = True,
) -> None:
    """Run one job to its end (or death) and write everything that must be equal to ``result`` (.npz and .json).

    Args:
        name: a key of `JOBS`, or a job.
        directory: the run.
        result: path without suffix.
        kill: hook and how many calls of it to survive, or None.
        checkpoint: False trains without our callback.
        seed: of the process; a resumed one must not depend on it.
        without: a mechanism to switch off: the negative control.
        background: False makes each snapshot durable at once, so that the place of a kill tells where it resumes.
    """
    if without is not None:
        SWITCHES[without]()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    job = name if isinstance(name, Job) else JOBS[name]
    pl.seed_everything(seed, verbose=False)
    data = torch.Generator().manual_seed(0)
    x = torch.randn(BATCHES * BATCH_SIZE - 1, 6, generator=data)
    y = x.sum(1, keepdim=True)
    torch.manual_seed(3)
    module = job.module()
    torch.manual_seed(seed)
    callbacks = [*job.callbacks()]
    monitor = "val_loss" if job.validate else None
    ours = Checkpointer(directory, monitor=monitor, save=every_steps(2) | on_end(), background=background)
    if checkpoint:
        callbacks.append(ours)
    if kill:
        callbacks.append(KillAt(*kill))
    losses: list[str] = []
    trainer = pl.Trainer(
        **{"max_epochs": EPOCHS, "limit_val_batches": 1.0 if job.validate else 0, **job.trainer},
        callbacks=[*callbacks, Losses(losses)],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=checkpoint,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=1,
    )
    loaders = job.loaders(x, y) if job.loaders else DataLoader(job.data(x, y), batch_size=BATCH_SIZE, **job.loader)
    if isinstance(loaders, pl.LightningDataModule):
        trainer.fit(module, datamodule=loaders)
    else:
        trainer.fit(module, loaders, DataLoader(TensorDataset(x, y), 9))
    Path(result + ".json").write_text(json.dumps(losses))
    Path(result + ".resumed").write_text(str(ours.resumed.step if ours.resumed else 0))
    Path(result + ".missing").write_text(json.dumps(ours._missing))
    np.savez(result + ".npz", **everything(trainer, module))


class Losses(pl.Callback):
    """Notes what each epoch logged, bit for bit."""

    def __init__(self, losses: list[str]) -> None:
        self.losses = losses

    def on_train_epoch_end(self, trainer: Any, *_: Any) -> None:
        self.losses.append(repr(sorted((key, value.item()) for key, value in trainer.callback_metrics.items())))


def everything(trainer: pl.Trainer, module: pl.LightningModule) -> dict[str, np.ndarray]:
    """Weights, optimizers, schedulers, counters and random generators as arrays."""
    found = {f"weights/{key}": value.numpy() for key, value in module.state_dict().items()}
    for index, optimizer in enumerate(trainer.optimizers):
        for number, state in optimizer.state_dict()["state"].items():
            found |= {
                f"optimizer{index}/{number}/{key}": np.asarray(value)
                for key, value in state.items()
                if value is not None
            }
        found[f"optimizer{index}/lr"] = np.asarray([group["lr"] for group in optimizer.param_groups])
    for index, config in enumerate(trainer.lr_scheduler_configs):
        plain = {
            key: value for key, value in config.scheduler.state_dict().items() if isinstance(value, (int, float, list))
        }
        found[f"scheduler{index}"] = np.frombuffer(repr(sorted(plain.items())).encode(), np.uint8)
    found["torch"] = torch.get_rng_state().numpy()
    found["numpy"] = np.random.get_state()[1]
    found["counters"] = np.asarray([trainer.global_step, trainer.current_epoch])
    return found
