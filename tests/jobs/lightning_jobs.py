"""Small training jobs for Lightning. Each `Job` is one way that people train; `train` runs it in its own process."""

from __future__ import annotations

import array
import collections
import copy
import itertools
import json
import queue
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytorch_lightning as pl
import torch
import torchmetrics
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from ckpt_callbacks import every_batches, on_end
from ckpt_callbacks._torch_data.source import Source
from ckpt_callbacks.pytorch_lightning import Checkpointer
from ckpt_callbacks.state import random_state
from ckpt_callbacks.state.objects.attributes import Attributes
from ckpt_callbacks.store.writing import DurableFiles
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
        if self.schedule == "cyclic":
            cycle = lr.CyclicLR(optimizer, 0.001, 0.02, step_size_up=3)
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
        self.range = torchmetrics.wrappers.MinMaxMetric(torchmetrics.MeanMetric())

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        self.measure(self.net(batch[0]), batch[1])
        self.log("measure", self.measure, on_step=False, on_epoch=True)
        self.log("smallest", self.range(self.net(batch[0]).detach().mean())["min"])
        return super().training_step(batch, batch_idx)


class OwnNoise(Net):
    """Draws from a generator of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(5)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return super().training_step(batch, batch_idx) * (1 + 0.1 * torch.rand((), generator=self.generator))


class NoisyLookahead(torch.optim.SGD):
    """Keeps slow weights in an attribute, and draws from a generator of its own."""

    def __init__(self, parameters: Any, **options: Any) -> None:
        super().__init__(parameters, **options)
        self.steps, self.generator = 0, torch.Generator().manual_seed(3)
        self.slow = [one.detach().clone() for group in self.param_groups for one in group["params"]]

    def step(self, closure: Any = None) -> Any:
        loss = super().step(closure)
        self.steps += 1
        fast = [one for group in self.param_groups for one in group["params"]]
        for slow, one in zip(self.slow, fast, strict=True):
            one.data.add_(torch.randn(one.shape, generator=self.generator), alpha=1e-3)
            if self.steps % 3 == 0:
                one.data.copy_(slow.lerp_(one.data, 0.5))
        return loss


class OwnKindOfOptimizer(Net):
    """Trained by an optimizer of the user's."""

    def configure_optimizers(self) -> Any:
        return NoisyLookahead(self.parameters(), lr=0.01, momentum=0.9)


class LooksBack(Net):
    """Weighs the loss by the gradients of the step before; they pile up where no optimizer clears them."""

    def __init__(self) -> None:
        super().__init__()
        self.bank = nn.Parameter(torch.ones(1))
        self.register_buffer("seen", torch.zeros(0))

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.net.parameters(), lr=0.01)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        before = sum((one.grad.norm() for one in self.parameters() if one.grad is not None), torch.zeros(()))
        loss = super().training_step(batch, batch_idx) * self.bank.mean() * (1 + 0.01 * before.detach())
        self.seen = torch.cat([self.seen, loss.detach()[None]])
        return loss + 0 * self.seen.mean()


def hooked() -> Net:
    """A model whose first layer has a hook that encloses a variable."""
    module, mean = Net(), 0.0

    def hook(layer: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        nonlocal mean
        mean = 0.9 * mean + 0.1 * float(output.detach().mean())
        return output - mean

    module.net[0].register_forward_hook(hook)
    return module


def counting() -> pl.Callback:
    """A callback made of a function that encloses a count."""
    batches = 0

    def count(trainer: Any, *_: Any) -> None:
        nonlocal batches
        batches += 1
        trainer.optimizers[0].param_groups[0]["lr"] = 0.01 / (1 + 0.1 * batches)

    return pl.callbacks.LambdaCallback(on_train_batch_end=count)


class AveragesLate(pl.callbacks.StochasticWeightAveraging):
    """A class of the user's."""


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


class KeepsRecords(Net):
    """A record of each of many samples, in containers of the standard library that are objects, too."""

    def __init__(self) -> None:
        super().__init__()
        self.records = {index: {"loss": 0.0, "count": 0} for index in range(6000)}
        self.totals = array.array("d", [0.0])
        self.recent: queue.Queue[float] = queue.Queue()
        self.by_name = collections.UserDict(sum=0.0)
        self.chain = collections.ChainMap({"last": 0.0}, {"first": 1.0})

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = super().training_step(batch, batch_idx)
        record = self.records[7 * batch_idx]
        record["loss"] += float(loss)
        record["count"] += 1
        self.totals[0] += record["loss"]
        self.recent.put(float(loss))
        self.by_name["sum"] += self.recent.get() if batch_idx % 3 else 0.1
        self.chain["last"] = self.by_name["sum"]
        return loss * (1 + 0.01 * record["loss"] + 0.001 * self.totals[0] + 0.01 * self.chain["last"])


class Remembers(Net):
    """Plain attributes that say how it goes on: numbers, lists, an object, tensors, a buffer that no one saves."""

    outputs: ClassVar[list[float]] = []

    def __init__(self) -> None:
        super().__init__()
        self.steps, self.average, self.history = 0, None, {"losses": []}
        self.meter = Meter()
        self.shadow = [parameter.detach().clone() for parameter in self.net.parameters()]
        self.register_buffer("center", torch.zeros(()), persistent=False)

    def on_train_epoch_start(self) -> None:
        self.outputs = []  # an attribute that only training makes

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = super().training_step(batch, batch_idx)
        now = loss.detach()
        self.steps += 1
        self.meter.add(float(now))
        self.history["losses"].append(float(now))
        self.outputs.append(float(now))
        self.average = now if self.average is None else 0.9 * self.average + 0.1 * now
        self.center.lerp_(now, 0.1)
        return loss * (1 + 0.01 * self.steps) + 0.1 * (self.average + self.center) * self.net[4].bias.sum()

    def on_train_batch_end(self, *_: Any) -> None:
        with torch.no_grad():
            for slow, fast in zip(self.shadow, self.net.parameters(), strict=True):
                slow.data.lerp_(fast, 0.1)
                fast.lerp_(slow, 0.05)

    def on_train_epoch_end(self) -> None:
        self.log("outputs", float(np.mean(self.outputs)) + len(self.history["losses"]) + self.meter.mean())


class Meter:
    """A user's own helper, without `state_dict`."""

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0

    def add(self, value: float) -> None:
        self.total, self.count = self.total + value, self.count + 1

    def mean(self) -> float:
        return self.total / self.count


class Taught(Net):
    """Follows a slow copy of itself that is no submodule."""

    def __init__(self) -> None:
        super().__init__()
        self.teachers = [copy.deepcopy(self.net)]

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        with torch.no_grad():
            for slow, fast in zip(self.teachers[0].parameters(), self.net.parameters(), strict=True):
                slow.data.lerp_(fast, 0.1)
            target = self.teachers[0](batch[0])
        return super().training_step(batch, batch_idx) + nn.functional.mse_loss(self.net(batch[0]), target)


class TaughtLate(Net):
    """Follows a submodule that is made after Lightning loaded weights."""

    def on_fit_start(self) -> None:
        self.teacher = copy.deepcopy(self.net).requires_grad_(False)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        with torch.no_grad():
            for slow, fast in zip(self.teacher.parameters(), self.net.parameters(), strict=True):
                slow.lerp_(fast, 0.1)
            target = self.teacher(batch[0])
        return super().training_step(batch, batch_idx) + nn.functional.mse_loss(self.net(batch[0]), target)


class Frozen(Net):
    """Optimizes what is not frozen."""

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW([one for one in self.parameters() if one.requires_grad], lr=0.01)


class Thaws(Frozen):
    """Trains its first layer, with a group and a rate of its own, and less dropout from the second epoch on."""

    def __init__(self) -> None:
        super().__init__()
        self.net[0].requires_grad_(False)

    def on_train_epoch_start(self) -> None:
        if self.current_epoch == 1:
            self.net[0].requires_grad_(True)
            self.optimizers().add_param_group({"params": list(self.net[0].parameters()), "lr": 0.005})
            self.net[1].eval()
            self.net[3].p = 0.1


class Finetuning(pl.callbacks.BaseFinetuning):
    """Unfreezes the first layer in the second epoch."""

    def freeze_before_training(self, pl_module: Any) -> None:
        self.freeze(pl_module.net[:2], train_bn=False)

    def finetune_function(self, pl_module: Any, epoch: int, optimizer: Any) -> None:
        if epoch == 1:
            self.unfreeze_and_add_param_group(pl_module.net[:2], optimizer, lr=0.005)


class OwnOptimizer(Net):
    """An optimizer and a schedule that Lightning doesn't know of."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.own = torch.optim.Adam(self.net.parameters(), 0.01)
        self.decay = torch.optim.lr_scheduler.ExponentialLR(self.own, 0.95)

    def configure_optimizers(self) -> None:
        return None

    def training_step(self, batch: Any, batch_idx: int) -> None:
        self.own.zero_grad()
        self.manual_backward(self._loss(batch))
        self.own.step()
        self.decay.step()


class KeepsGradients(Net):
    """Lets gradients pile up in a way that only its own hook knows."""

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Any) -> None:
        if batch_idx % 2 == 0:
            optimizer.zero_grad()


class Measures(Net):
    """Metrics with lists for states, in collections, and one that is no submodule."""

    def __init__(self) -> None:
        super().__init__()
        self.errors = torchmetrics.MetricCollection(
            [torchmetrics.MeanSquaredError(), torchmetrics.MeanAbsoluteError(), torchmetrics.SpearmanCorrCoef()]
        )
        self.outside = [torchmetrics.MeanMetric()]

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = super().training_step(batch, batch_idx)
        self.errors.update(self.net(batch[0]).detach().squeeze(1), batch[1].squeeze(1))
        self.outside[0].update(loss.detach())
        return loss

    def on_train_epoch_end(self) -> None:
        self.log_dict({**self.errors.compute(), "outside": self.outside[0].compute()})
        self.errors.reset()
        self.outside[0].reset()


class Gentle(Net):
    """Without batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.net[1] = nn.Identity()


class Lbfgs(Net):
    """An optimizer that runs the batch several times."""

    def configure_optimizers(self) -> Any:
        return torch.optim.LBFGS(self.parameters(), 0.1, max_iter=3)


class Transformer(Net):
    """A transformers model, with the rate schedule of that library."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import BertConfig, BertForSequenceClassification

        sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
        self.net = BertForSequenceClassification(BertConfig(vocab_size=30, max_position_embeddings=8, **sizes))

    def _loss(self, batch: Any) -> torch.Tensor:
        x, y = batch
        loss: torch.Tensor = self.net((x.abs() * 5).long() % 30, labels=(y[:, 0] > 0).long()).loss
        return loss

    def configure_optimizers(self) -> Any:
        from transformers import get_cosine_schedule_with_warmup

        optimizer = torch.optim.AdamW(self.parameters(), lr=0.01)
        schedule = get_cosine_schedule_with_warmup(optimizer, 3, EPOCHS * BATCHES)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


class Compiled(Net):
    """Its layers are compiled."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.compile(self.net, backend="eager")


def swa(**options: Any) -> Any:
    """Averages from the second epoch on."""
    return pl.callbacks.StochasticWeightAveraging(0.005, swa_epoch_start=1, **options)


class Nudge(pl.Callback):
    """A user's callback with a count in a plain attribute: it disturbs the weights in every third batch."""

    def __init__(self) -> None:
        self.calls = 0

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.calls += 1
        if self.calls % 3 == 0:
            with torch.no_grad():
                pl_module.net[0].weight.add_(0.001 * self.calls)


class Curriculum(pl.Callback):
    """Sets rates and clipping as training goes on, and anew whenever training starts."""

    def on_train_start(self, trainer: Any, *_: Any) -> None:
        trainer.optimizers[0].param_groups[0]["lr"] = 0.02

    def on_train_epoch_end(self, trainer: Any, *_: Any) -> None:
        trainer.optimizers[0].param_groups[0]["lr"] *= 0.5
        trainer.gradient_clip_val = 0.1 * (1 + trainer.current_epoch)


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
    "cyclic schedule": Job(lambda: Net("cyclic")),
    "plateau on the validation loss": Job(lambda: Net("plateau:val_loss")),
    "plateau on the epoch's mean train loss": Job(lambda: Net("plateau:train_loss_epoch"), validate=False),
    "metrics logged once an epoch, or as a maximum": Job(LogsOnce),
    "precision 64": Job(trainer={"precision": "64-true"}),
    "a torchmetrics object": Job(Measured),
    "an optimizer of the user's class": Job(OwnKindOfOptimizer),
    "gradients read again, a buffer that grows": Job(LooksBack),
    "variables that hooks and callbacks enclose": Job(hooked, callbacks=lambda: [counting()]),
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
    "state in plain attributes of the module": Job(Remembers),
    "records of many samples, in containers of all kinds": Job(KeepsRecords),
    "a slow copy outside of the module": Job(Taught),
    "a slow copy made in on_fit_start": Job(TaughtLate),
    "a callback with a count, one that sets rates": Job(callbacks=lambda: [Nudge(), Nudge(), Curriculum()]),
    "layers thawed in the module's own hook": Job(Thaws),
    "fine-tuning callback": Job(Frozen, callbacks=lambda: [Finetuning()]),
    "an optimizer of the module's own": Job(OwnOptimizer),
    "gradients kept by the module's own hook": Job(KeepsGradients),
    "metric collections and lists": Job(Measures),
    "accumulation scheduler": Job(callbacks=lambda: [pl.callbacks.GradientAccumulationScheduler({0: 1, 1: 3})]),
    "stochastic weight averaging": Job(callbacks=lambda: [swa(annealing_epochs=2)]),
    "a subclass of stochastic weight averaging": Job(
        callbacks=lambda: [AveragesLate(swa_lrs=0.02, swa_epoch_start=1, annealing_epochs=2)]
    ),
    "stochastic weight averaging without batch norm": Job(Gentle, callbacks=lambda: [swa(annealing_epochs=2)]),
    "weight averaging, validation inside the epoch": Job(
        callbacks=lambda: [pl.callbacks.EMAWeightAveraging(decay=0.8)], trainer={"val_check_interval": 3}
    ),
    "pruning, lottery tickets": Job(callbacks=lambda: [pl.callbacks.ModelPruning("l1_unstructured", amount=0.2)]),
    "pruning that stays a mask": Job(
        callbacks=lambda: [pl.callbacks.ModelPruning("l1_unstructured", amount=0.2, make_pruning_permanent=False)]
    ),
    "LBFGS": Job(Lbfgs),
    "bf16": Job(trainer={"precision": "bf16-mixed", "gradient_clip_val": 0.1}),
    "compiled": Job(Compiled),
    "a transformers model": Job(Transformer),
    "max_steps within an epoch": Job(trainer={"max_steps": 17, "max_epochs": -1}),
}


class KillAt(pl.Callback):
    """SIGKILL in the ``count``-th call of a hook in this process.

    The count is no attribute: those are state, and a resumed run would go on counting.
    """

    def __init__(self, hook: str, count: int) -> None:
        calls = itertools.count(1)
        setattr(self, hook, lambda *_, **__: die() if next(calls) == count else None)


def die_in_a_save(count: int) -> None:
    """SIGKILL when the writer's thread has written its ``count``-th file, before the snapshot is complete."""
    write, calls = DurableFiles.write, itertools.count(1)

    def written(self: DurableFiles, *args: Any, **options: Any) -> Any:
        done = write(self, *args, **options)
        if next(calls) == count:
            die()
        return done

    DurableFiles.write = written  # type: ignore[method-assign]


def _no_replay() -> None:
    Source.return_to = lambda self, place: iter(self)  # type: ignore[method-assign, assignment]


def _no_random_state() -> None:
    random_state.restore = lambda state: None  # type: ignore[assignment]


def _no_attributes() -> None:
    Attributes.put_back = lambda self, saved: []  # type: ignore[method-assign]


SWITCHES = {"replay": _no_replay, "random state": _no_random_state, "attributes": _no_attributes}


def train(
    name: str | Job,
    directory: str,
    result: str,
    kill: tuple[str, int] | None = None,
    checkpoint: bool = True,
    seed: int = 1,
    without: str | None = None,
    background: bool = True,
    peer: bool = False,
) -> None:
    """Run one job to its end (or death) and write everything that must be equal to ``result`` (.npz and .json).

    Args:
        name: a key of `JOBS`, or a job.
        directory: the run.
        result: path without suffix.
        kill: hook and which call of it dies (for "save", which written file), or None.
        checkpoint: False trains without our callback.
        seed: of the process; a resumed one must not depend on it.
        without: a mechanism to switch off: the negative control.
        background: False makes each snapshot durable at once, so that the place of a kill tells where it resumes.
        peer: train with Lightning's own ModelCheckpoint, saving as often, instead of our callback.
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
    ours = Checkpointer(directory, monitor=monitor, save=every_batches(2) | on_end(), background=background)
    theirs = pl.callbacks.ModelCheckpoint(directory, every_n_train_steps=2, save_last=True)
    if checkpoint:
        callbacks.append(theirs if peer else ours)
    if kill and kill[0] == "save":
        die_in_a_save(kill[1])
    elif kill:
        callbacks.append(KillAt(*kill))
    losses: list[str] = []
    trainer = pl.Trainer(
        **{
            "max_epochs": EPOCHS,
            "limit_val_batches": 1.0 if job.validate else 0,
            "num_sanity_val_steps": 1,
            **job.trainer,
        },
        callbacks=[*callbacks, Losses(losses)],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=checkpoint,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loaders = job.loaders(x, y) if job.loaders else DataLoader(job.data(x, y), batch_size=BATCH_SIZE, **job.loader)
    if isinstance(loaders, pl.LightningDataModule):
        loading = {"datamodule": loaders}
    else:
        loading = {"train_dataloaders": loaders, "val_dataloaders": DataLoader(TensorDataset(x, y), 9)}
    if peer:
        loading |= {"ckpt_path": "last", "weights_only": False}
    trainer.fit(module, **loading)
    Path(result + ".json").write_text(json.dumps(losses))
    Path(result + ".resumed").write_text(str(ours.resumed.snapshot.progress.batches if ours.resumed else 0))
    Path(result + ".missing").write_text(json.dumps(ours._saver.missing))
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
        for number, state in optimizer.state_dict().get("state", {}).items():
            found |= {
                f"optimizer{index}/{number}/{key}": np.asarray(value)
                for key, value in state.items()
                if isinstance(value, (torch.Tensor, int, float))
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
