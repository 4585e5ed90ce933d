"""What a step costs with nothing due: in tight loops, inside a real trainer, and as the difference between runs.

    python -m benchmarks.step_cost

Called in a tight loop, everything is in the processor's caches; between two steps of training nothing is, and the same
calls take several times as long. A difference between runs holds what Lightning does for any callback as well, which
the empty one shows.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import tempfile
import time
import timeit
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset

from ckpt_callbacks import every_steps, on_best, on_end
from ckpt_callbacks._lightning.fit import Fit
from ckpt_callbacks.checkpointer import BaseCheckpointer
from ckpt_callbacks.engine import Event, Progress
from ckpt_callbacks.pytorch_lightning import Checkpointer
from ckpt_callbacks.state.captured import Captured
from ckpt_callbacks.store import fingerprint

ROUNDS, CALLS, STEPS = 7, 20_000, 2_000


def main() -> None:
    """Print medians, in microseconds."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as directory:
        for what, seconds in (*_tight(Path(directory)), *_in_a_trainer(Path(directory)), *_import()):
            print(f"{what:<56} {seconds * 1e6:9.1f} us")


def _tight(directory: Path) -> Iterator[tuple[str, float]]:
    checkpointer = BaseCheckpointer(directory / "run", monitor="loss", save=every_steps(10**9) | on_best() | on_end())
    checkpointer.begin({})
    progress = Progress(1, 0, 1, 1)
    checkpointer.boundary(progress, Event.NONE, {}, _never)
    calls: dict[str, Callable[[], object]] = {
        "trace: fingerprint and record": lambda: checkpointer.stepped(7, 7, 0.5, fingerprint(0.5)),
        "boundary: nothing can be due": lambda: checkpointer.rests(1, 1),
        "boundary: decided anew": lambda: checkpointer.boundary(progress, Event.NONE, {}, _never),
    }
    for what, call in calls.items():
        yield f"tight loop: {what}", median(timeit.repeat(call, number=CALLS, repeat=ROUNDS)) / CALLS
    checkpointer.end()


def _never() -> Captured:
    raise AssertionError("nothing is due")


class Model(pl.LightningModule):
    """As little as can be trained."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        """A loss."""
        return self.layer(batch[0]).mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Without a state."""
        return torch.optim.SGD(self.parameters(), lr=0.01)


TIMES: list[float] = []


class Clock(pl.Callback):
    """When each step ended, in processor time of this thread: what others do to the machine does not count."""

    def on_train_batch_end(self, *_: Any) -> None:
        """Note the time."""
        TIMES.append(time.thread_time())


def _step(callbacks: list[pl.Callback]) -> float:
    """Seconds of a step, in the middle of some thousand."""
    TIMES.clear()
    saves = any(isinstance(one, pl.callbacks.Checkpoint) for one in callbacks)
    trainer = pl.Trainer(
        max_epochs=1,
        callbacks=[*callbacks, Clock()],
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=saves,
    )
    trainer.fit(Model(), DataLoader(TensorDataset(torch.randn(4 * STEPS, 4)), 4))
    return median(later - earlier for earlier, later in itertools.pairwise(TIMES))


def _in_a_trainer(directory: Path) -> Iterator[tuple[str, float]]:
    spent: list[float] = []
    arms: dict[str, Callable[[Path], pl.Callback]] = {
        "an empty callback": lambda place: pl.Callback(),
        "ModelCheckpoint": lambda place: pl.callbacks.ModelCheckpoint(place, every_n_train_steps=10**9),
        "ours": lambda place: Checkpointer(place, save=every_steps(10**9)),
        "ours, with the default triggers": Checkpointer,
    }
    differences: dict[str, list[float]] = {what: [] for what in arms}
    for number in range(ROUNDS):
        without = _step([])
        for what, make in arms.items():
            differences[what].append(_step([make(directory / f"{what} {number}")]) - without)
    hooks = ("on_train_batch_start", "on_before_optimizer_step", "on_train_batch_end")
    for owner, name in (*((Checkpointer, name) for name in hooks), (Fit, "before_fetch")):
        times: list[float] = []
        function = getattr(owner, name)
        setattr(owner, name, _timed(function, times))
        _step([Checkpointer(directory / name, save=every_steps(10**9))])
        setattr(owner, name, function)
        spent.append(median(times))
    yield "a Trainer's step: inside our hooks and at the boundary", sum(spent)
    for what, found in differences.items():
        yield f"a Trainer's step: longer with {what}", median(found)


def _timed(function: Callable[..., Any], times: list[float]) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        began = time.perf_counter()
        function(*args)
        times.append(time.perf_counter() - began)

    return call


def _import() -> Iterator[tuple[str, float]]:
    code = "import time; began = time.perf_counter(); import ckpt_callbacks; print(time.perf_counter() - began)"
    command = [sys.executable, "-c", code]
    found = [float(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(ROUNDS)]
    yield "import ckpt_callbacks", median(found)


if __name__ == "__main__":
    main()
