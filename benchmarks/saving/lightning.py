"""Lightning: ours, `ModelCheckpoint`, and `ModelCheckpoint` with `AsyncCheckpointIO`, on the same training."""

from __future__ import annotations

import functools
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import safetensors.torch
import torch
from pytorch_lightning.plugins import AsyncCheckpointIO, TorchCheckpointIO
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.saving.measure import Figures, Inside, Meter, evict, make_durable, reserve_memory, serve, warm
from ckpt_callbacks import every_steps, keep_last
from ckpt_callbacks.pytorch_lightning import Checkpointer


class Model(pl.LightningModule):
    """Layers of equal width, BatchNorm between them, Adam: three numbers of state for each weight that is trained.

    Args:
        width: of every layer.
        layers: how many.
        frozen: how many of them are not trained.
    """

    def __init__(self, width: int, layers: int, frozen: int = 0) -> None:
        super().__init__()
        pairs = [(torch.nn.Linear(width, width), torch.nn.BatchNorm1d(width)) for _ in range(layers)]
        self.layers = torch.nn.Sequential(*(one for pair in pairs for one in pair))
        for layer in self.layers[: 2 * frozen]:
            layer.requires_grad_(False)

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        """The mean square of what comes out."""
        return self.layers(batch[0]).square().mean()

    def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        """The same, as what is monitored."""
        self.log("val_loss", self.training_step(batch, batch_idx))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam over all that is trained."""
        return torch.optim.Adam([one for one in self.parameters() if one.requires_grad], lr=1e-4)


class Many(pl.LightningModule):
    """Thousands of small weights, without moments.

    Args:
        tensors: how many.
        size: of each.
    """

    def __init__(self, tensors: int, size: int = 2000) -> None:
        super().__init__()
        self.weights = torch.nn.ParameterList([torch.nn.Parameter(torch.randn(size)) for _ in range(tensors)])

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        """Something of each."""
        return torch.stack([weight[0] for weight in self.weights]).sum() * batch[0].mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Plain descent."""
        return torch.optim.SGD(self.parameters(), lr=1e-4)


class SaveFile(pl.Callback):
    """The least that a script can do: `safetensors.torch.save_file` of the weights, flushed if asked to."""

    def __init__(self, directory: Path, every: int, durable: bool) -> None:
        self.directory, self.every, self.durable = directory, every, durable

    def save(self, module: pl.LightningModule, step: int) -> None:
        """Write one file."""
        self.directory.mkdir(exist_ok=True)
        path = self.directory / f"{step % (2 * self.every)}.safetensors"
        safetensors.torch.save_file(module.state_dict(), path)
        if self.durable:
            make_durable(path)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Save every so many steps."""
        if trainer.global_step % self.every == 0:
            self.save(pl_module, trainer.global_step)


class Clock(pl.Callback):
    """When each step began."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_batch_start(self, *_: Any) -> None:
        """Note the time."""
        self.times.append(time.perf_counter())


class DurableIO(TorchCheckpointIO):
    """Lightning's own writer, and an fsync: what is saved survives a power cut."""

    def save_checkpoint(self, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
        """Write, then flush."""
        super().save_checkpoint(checkpoint, path, storage_options)
        make_durable(path)


@dataclass(frozen=True)
class When:
    """What is saved: the state after every so many steps, or that of each epoch, whose validation tells the best."""

    directory: Path
    every: int
    durable: bool
    monitors: bool = False


Setup = tuple[list[pl.Callback], list[Any], Callable[[], str], Inside]
"""Callbacks, plugins, the path to resume from, and where the time inside callbacks is gathered."""


def _none(when: When) -> Setup:
    return [], [], lambda: "", Inside()


def _ours(when: When, *, background: bool = True) -> Setup:
    plain: dict[str, Any] = {"save": every_steps(when.every), "keep": keep_last(2)}
    callback = Checkpointer(
        when.directory / "run",
        durability="full" if when.durable else "none",
        background=background,
        **({"monitor": "val_loss"} if when.monitors else plain),
    )
    inside = Inside()
    callback.boundary = inside.saves(callback.boundary, lambda saved: saved is not None)  # type: ignore[method-assign]
    callback.fence = inside.waits(callback.fence)  # type: ignore[method-assign]
    return [callback], [], lambda: "", inside


def _save_file(when: When) -> Setup:
    inside, callback = Inside(), SaveFile(when.directory / "run", when.every, when.durable)
    callback.save = inside.saves(callback.save)  # type: ignore[method-assign]
    return [callback], [], lambda: "", inside


def _peer(wrap: Callable[[Any], Any]) -> Callable[[When], Setup]:
    def setup(when: When) -> Setup:
        inside, run = Inside(), when.directory / "run"
        due = {"every_n_epochs": 1} if when.monitors else {"every_n_train_steps": when.every}
        newest_two: dict[str, Any] = {"monitor": "step", "mode": "max", "save_top_k": 2}
        callback = pl.callbacks.ModelCheckpoint(run, filename="{step}", **newest_two, **due)
        callback._save_topk_checkpoint = inside.saves(callback._save_topk_checkpoint)  # type: ignore[method-assign]
        io = wrap(DurableIO() if when.durable else TorchCheckpointIO())
        newest = lambda: str(max(run.glob("*.ckpt"), key=lambda path: path.stat().st_mtime))  # noqa: E731
        return [callback], [io], newest, inside

    return setup


SETUPS = {
    "no checkpoints": _none,
    "ours": _ours,
    "ModelCheckpoint": _peer(lambda io: io),
    "AsyncCheckpointIO": _peer(AsyncCheckpointIO),
    "ours, waited for": functools.partial(_ours, background=False),
    "safetensors.save_file": _save_file,
}


def run(name: str, options: dict[str, Any]) -> Figures:
    """Train and save, then resume in the same process and time it to the first step."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(options["threads"])
    directory, every = Path(options["directory"]), options["every"]
    figures, clock = Figures(), Clock()
    when = When(directory, every, options["durable"], options.get("monitors", False))
    callbacks, plugins, resume_from, inside = SETUPS[name](when)
    model = _model(options)
    with Meter(figures):
        validation = _data(options | {"batches": 1}) if when.monitors else None
        _trainer(options, options["steps"], [*callbacks, clock], plugins).fit(model, _data(options), validation)
    figures.steps = [later - earlier for earlier, later in zip(clock.times, clock.times[1:], strict=False)]
    figures.saves = 0 if name == "no checkpoints" else options["steps"] // every
    figures.inside = inside.times
    if options["restore"]:
        weights = {key: tensor.clone() for key, tensor in model.state_dict().items()}
        del model
        for prepare, which in ((evict, "restore"), (warm, "restore_cached")):
            prepare(directory)
            reserve_memory(9 * sum(tensor.nbytes for tensor in weights.values()))  # thrice the state of Adam
            seconds, exact = _resume(name, options, weights, resume_from())
            setattr(figures, which, seconds)
            figures.exact = figures.exact and (exact or not figures.saves)
    return figures


def _resume(name: str, options: dict[str, Any], weights: dict[str, torch.Tensor], path: str) -> tuple[float, bool]:
    """Carry on for a step: how long until it is done, and are the weights before it those that were trained?

    Until it is done, because what a checkpoint's map was not asked for yet is read in it.
    """
    again = _model(options)
    callbacks, plugins, _, _ = SETUPS[name](When(Path(options["directory"]), 10**9, options["durable"]))
    done: list[float] = []
    compared: list[bool] = []

    class Compare(pl.Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            began = time.perf_counter()
            found = again.state_dict()
            compared.append(all(torch.equal(found[key], tensor) for key, tensor in weights.items()))
            done.append(began - time.perf_counter())  # to compare is no part of it

        def on_train_batch_end(self, *_: Any) -> None:
            done.append(time.perf_counter())

    trainer = _trainer(options, options["steps"] + 1, [*callbacks, Compare()], plugins)
    data = _data(options)
    start = time.perf_counter()
    trainer.fit(again, data, ckpt_path=path or None)
    return sum(done[:2]) - start, compared[:1] == [True]


def _model(options: dict[str, Any]) -> pl.LightningModule:
    torch.manual_seed(1)
    return (
        Many(options["tensors"])
        if "tensors" in options
        else Model(options["width"], options["layers"], options["frozen"])
    )


def _data(options: dict[str, Any]) -> DataLoader[Any]:
    count = options["batch"] * options.get("batches", 100)
    rows = torch.randn(count, options["width"], generator=torch.Generator().manual_seed(2))
    return DataLoader(TensorDataset(rows), options["batch"])


def _trainer(options: dict[str, Any], steps: int, callbacks: list[Any], plugins: list[Any]) -> pl.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return pl.Trainer(
        max_steps=steps,
        callbacks=callbacks,
        plugins=plugins,
        accelerator=options["device"],
        devices=1,
        limit_train_batches=options["every"] if options.get("monitors") else None,
        num_sanity_val_steps=0,
        enable_checkpointing=any(isinstance(one, pl.callbacks.Checkpoint) for one in callbacks),
        **quiet,
    )


if __name__ == "__main__":
    serve({name: lambda options, name=name: run(name, options) for name in SETUPS})
