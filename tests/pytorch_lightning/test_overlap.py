"""What is copied while the next batch is trained on is the state of the boundary, byte for byte."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from ckpt_callbacks import every_epochs, every_steps, keep_all
from ckpt_callbacks._lightning import steadiness
from ckpt_callbacks._lightning.steadiness import steady_tensors
from ckpt_callbacks.pytorch_lightning import Checkpointer
from ckpt_callbacks.saving.overlap import Overlap
from ckpt_callbacks.state.memory import copying
from ckpt_callbacks.state.memory.copying import Copier, Copying
from ckpt_callbacks.state.objects.uncounted import is_countable
from tests.pytorch_lightning.conftest import fit

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")

OFTEN = every_steps(2)
WIDTH = 300  # a weight of 360 kB: worth being copied later


class Wide(pl.LightningModule):
    """Layers that are worth it, with BatchNorm, whose buffers change in the forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH), nn.Linear(WIDTH, WIDTH))

    def training_step(self, batch, batch_idx):
        return self.layers(batch[0]).square().mean()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())


class Clamps(Wide):
    """Changes weights before the forward pass, in a way that torch counts."""

    def on_train_batch_start(self, batch, batch_idx):
        with torch.no_grad():
            self.layers[0].weight.clamp_(-0.04, 0.04)


class ClampsData(Wide):
    """The same behind torch's back."""

    def on_train_batch_start(self, batch, batch_idx):
        self.layers[0].weight.data.clamp_(-0.04, 0.04)


def clamp(module):
    """A helper that does it."""
    for parameter in module.parameters():
        parameter.data.clamp_(-0.04, 0.04)


class CallsHelper(Wide):
    """Has it done by a function of the script."""

    def on_train_batch_start(self, batch, batch_idx):
        clamp(self)


class Manual(Wide):
    """Steps when it likes."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        for number, optimizer in enumerate(self.each()):
            optimizer.zero_grad()
            self.manual_backward(self.layers(batch[0]).square().mean() * (number + 1))
            optimizer.step()

    def each(self):
        return [self.optimizers()]


class Alternates(Manual):
    """Two optimizers, one used without Lightning's wrapper, which step in a way that torch does not count."""

    def each(self):
        return [self.optimizers(use_pl_optimizer=False)[0], self.optimizers()[1]]

    def configure_optimizers(self):
        halves = [self.layers[:2].parameters(), self.layers[2:].parameters()]
        return [torch.optim.Adam(half, lr=0.01, fused=True) for half in halves]


class HasAnother(Manual):
    """Steps with an optimizer of which the trainer does not know."""

    def __init__(self) -> None:
        super().__init__()
        self.other = torch.optim.SGD(self.layers[2:].parameters(), lr=0.01, fused=True)

    def each(self):
        return [self.optimizers(), self.other]


class Home(torch.optim.SGD):
    """An optimizer of the user's own."""


class Soft:
    """A helper of another class."""

    def update(self, module):
        for parameter in module.parameters():
            parameter.detach().numpy()[...] *= 0.999


class HasHelper(Wide):
    """Holds one."""

    def __init__(self) -> None:
        super().__init__()
        self.soft = Soft()

    def on_train_batch_start(self, batch, batch_idx):
        self.soft.update(self.layers[0])


class StepsItself(Wide):
    """Has its own idea of a step."""

    def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure=None):
        optimizer.optimizer.step(optimizer_closure)


class Hooked(Wide):
    """Registers a function that runs in the forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.layers[0].register_forward_pre_hook(lambda module, inputs: clamp(module))


class Holds(Wide):
    """Holds a function."""

    def __init__(self) -> None:
        super().__init__()
        self.before = functools.partial(clamp)

    def on_train_batch_start(self, batch, batch_idx):
        self.before(self)


class Rows(pl.LightningDataModule):
    """Has data that are called so, and makes arrays of them."""

    def __init__(self) -> None:
        super().__init__()
        self.data = np.ones((32, WIDTH), np.float32)

    def setup(self, stage):
        self.data = torch.randn(32, WIDTH, generator=torch.Generator().manual_seed(1)).numpy()

    def train_dataloader(self):
        return DataLoader(TensorDataset(torch.from_numpy(self.data)), batch_size=4, shuffle=True)


class Usual(Wide):
    """What many programs do: a method called step, a harmless hook, arrays where no batch is trained on."""

    def __init__(self) -> None:
        super().__init__()
        self.norms: list[float] = []
        self.layers[0].register_forward_hook(lambda module, inputs, output: self.norms.append(output.detach().norm()))

    def training_step(self, batch, batch_idx):
        self.norms.clear()
        return self.step(batch)

    def step(self, batch):
        return self.layers(batch[0]).square().mean()

    def validation_step(self, batch, batch_idx):
        self.show(self.layers(batch[0]).detach().numpy())

    def show(self, array):
        return array.data

    def lr_scheduler_step(self, scheduler, metric):
        scheduler.step()


class AsArray(Wide):
    """Makes an array of a weight, with a name that says nothing, and changes it: neither seen before nor counted."""

    def on_train_batch_start(self, batch, batch_idx):
        array = np.asarray(self.layers[0].weight.detach())
        array *= 0.99


class ByName(Wide):
    """Asks for ``data`` by a text."""

    def on_train_batch_start(self, batch, batch_idx):
        getattr(self.layers[0].weight, "data").mul_(0.99)  # noqa: B009


class HomeMade(Wide):
    """Uses it."""

    def configure_optimizers(self):
        return Home(self.parameters(), lr=0.1)


class Meddler(pl.Callback):
    """A callback that reaches for the data."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        pl_module.layers[0].weight.data.clamp_(-0.04, 0.04)


def data() -> DataLoader:
    rows = torch.randn(32, WIDTH, generator=torch.Generator().manual_seed(1))
    return DataLoader(TensorDataset(rows), batch_size=4, shuffle=True)


def run(directory, kind: type[pl.LightningModule], *, epochs: int = 1, save=OFTEN, **options):
    """Train with a snapshot after every second step; give the snapshots' tensors by step, and the trained module."""
    callback = Checkpointer(directory, save=save, keep=keep_all())
    torch.manual_seed(3)
    _, trained = fit(callback, epochs=epochs, module=kind(), data=data(), limit_val_batches=0, **options)
    return {snapshot.step: tensors(snapshot) for snapshot in callback.snapshots()}, trained


def tensors(snapshot) -> dict[str, bytes]:
    """All that it holds, weights and moments, by file and name."""
    from safetensors import safe_open

    found = {}
    for name in ("model.safetensors", "state.safetensors"):
        with safe_open(snapshot.path / name, framework="np") as file:
            found |= {f"{name} {key}": file.get_tensor(key).tobytes() for key in file.keys()}  # noqa: SIM118
    return {key: value for key, value in found.items() if "random" not in key}


@pytest.fixture
def beside(monkeypatch):
    """Copy beside training whenever it can be, as late as possible; give how often that was, and what came of it."""
    outcomes: list[bool] = []
    monkeypatch.setattr(Overlap, "pays", lambda self: True)
    monkeypatch.setattr(Copier, "begin", lambda self, copying: None)
    conclude = Copying.conclude

    def late(self: Copying) -> bool:
        if self.unfinished:
            self.work()
            outcomes.append(conclude(self))
        return conclude(self)

    monkeypatch.setattr(Copying, "conclude", late)
    return outcomes


@pytest.mark.parametrize("options", [{}, {"accumulate_grad_batches": 2}, {"gradient_clip_val": 0.1}], ids=str)
def test_the_snapshots_are_those_of_the_boundary(tmp_path, beside, options):
    """Also those taken amid an accumulation window, where no optimizer steps in the batch that follows."""
    late, _ = run(tmp_path / "late", Wide, **options)
    assert beside == [True] * (len(late) - 1)  # at the end of fit nothing follows, and the copy is made at once
    Overlap.pays = lambda self: False
    at_once, _ = run(tmp_path / "at once", Wide, **options)
    assert late == at_once


class Restarts(Wide):
    """Changes weights in the first batch of a late epoch, as warm restarts do."""

    def on_train_batch_start(self, batch, batch_idx):
        if batch_idx == 0 and self.current_epoch == 3:
            Clamps.on_train_batch_start(self, batch, batch_idx)


@pytest.mark.parametrize("kind", [Wide, Restarts])
def test_the_state_at_an_end_of_an_epoch_is_never_copied_late(tmp_path, beside, kind):
    """What was measured on it could not be measured on the one that is taken again."""
    late, _ = run(tmp_path / "late", kind, epochs=5, save=every_epochs(1))
    assert beside == []
    assert list(late) == [8, 16, 24, 32, 40]


def test_a_change_that_torch_counts_costs_a_step_and_no_byte(tmp_path, beside):
    """The first copy is torn, and taken again a step later; the others are made at once. A resume is exact."""
    late, trained = run(tmp_path / "late", Clamps, epochs=2)
    assert beside == [False]
    assert list(late) == [3, 4, 6, 8, 10, 12, 14, 16]
    Overlap.pays = lambda self: False
    at_once, _ = run(tmp_path / "at once", Clamps, epochs=2)
    assert all(late[step] == at_once[step] for step in (4, 8, 16))
    callback = Checkpointer(tmp_path / "again", resume=tmp_path / "late" / "snapshots" / _snapshot(tmp_path / "late"))
    _, resumed = fit(callback, epochs=2, module=Clamps(), data=data(), limit_val_batches=0, seed=7)
    assert all(torch.equal(a, b) for a, b in zip(trained.parameters(), resumed.parameters(), strict=True))


def _snapshot(directory) -> str:
    """The one that was taken again."""
    return next(path.name for path in (directory / "snapshots").iterdir() if path.name.startswith("000000003"))


@pytest.mark.parametrize("kind", [Manual, Alternates])
def test_in_manual_optimization_each_optimizer_tells_before_it_steps(tmp_path, beside, kind):
    """Whoever calls it, with Lightning's wrapper or without. Gradients are copied at once: anybody may change them."""
    late, _ = run(tmp_path / "late", kind)
    assert beside == [True] * 3
    Overlap.pays = lambda self: False
    at_once, trained = run(tmp_path / "at once", kind)
    assert late == at_once
    assert not any(optimizer._optimizer_step_pre_hooks for optimizer in trained.trainer.optimizers)


def test_without_that_the_copies_would_be_torn(tmp_path, beside, monkeypatch):
    """The control."""
    monkeypatch.setattr(steadiness.Fences, "put_up", lambda self, trainer: None)
    run(tmp_path, Alternates)
    assert beside == [False]


def test_what_many_programs_do_is_no_hindrance(tmp_path, beside):
    """Names that only look alike, and code that does not run in a batch."""
    callback = Checkpointer(tmp_path, save=every_steps(2), keep=keep_all())
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    pl.Trainer(max_epochs=1, callbacks=[callback], **quiet).fit(Usual(), datamodule=Rows())
    assert beside == [True] * (len(callback.snapshots()) - 1)


@pytest.mark.parametrize("kind", [ClampsData, CallsHelper, HasHelper, Holds, StepsItself, Hooked, HasAnother, HomeMade])
def test_where_changes_may_not_be_seen_nothing_is_copied_late(tmp_path, beside, kind):
    """Code that reaches behind torch's count, optimizers that aren't torch's, steps that are the user's own."""
    run(tmp_path, kind)
    assert beside == []


EVASIVE = pytest.mark.parametrize("kind", [AsArray, ByName])


@EVASIVE
def test_changes_that_nobody_foresaw_are_found_by_a_glance(tmp_path, beside, kind):
    """No list of names is complete. The copy is compared with what was there at the boundary, at some places."""
    late, _ = run(tmp_path / "late", kind)
    assert beside == [False]
    Overlap.pays = lambda self: False
    at_once, _ = run(tmp_path / "at once", kind)
    assert all(late[step] == at_once[step] for step in (4, 6, 8))


@EVASIVE
def test_without_the_glance_they_would_be_kept(tmp_path, beside, kind, monkeypatch):
    """The control."""
    monkeypatch.setattr(copying, "glance", lambda data: b"")
    late, _ = run(tmp_path / "late", kind)
    assert beside == [True] * (len(late) - 1)
    Overlap.pays = lambda self: False
    at_once, _ = run(tmp_path / "at once", kind)
    assert any(late[step] != at_once[step] for step in (2, 4, 6))


@pytest.mark.parametrize(
    "callback",
    [Meddler(), pl.callbacks.StochasticWeightAveraging(0.1), pl.callbacks.LambdaCallback()],
    ids=lambda one: type(one).__name__,
)
def test_callbacks_are_looked_at_too(tmp_path, beside, callback):
    """They may do what the module does; of Lightning's own some do."""
    run(tmp_path, Wide, callbacks=[callback])
    assert beside == []


def test_a_class_whose_module_is_not_loaded_by_name(tmp_path, beside):
    """As when a file is executed by its path: its code is looked at all the same."""
    space: dict[str, object] = {"__name__": "nowhere", "Wide": Wide}
    exec(
        "class Kind(Wide):\n    def on_train_batch_start(self, *_):\n        self.layers[0].weight.data.mul_(1)", space
    )
    run(tmp_path, space["Kind"])
    assert beside == []


def test_sparse_moments_are_not_steady():
    """They have no bytes that one could note."""
    module = torch.nn.Embedding(300, 300, sparse=True)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    module(torch.tensor([1])).sum().backward()
    optimizer.step()
    assert not is_countable(optimizer.state[module.weight]["momentum_buffer"])


def test_which_tensors_are_steady(tmp_path):
    """Parameters and moments, by address and size; not the buffers, which the forward pass changes."""
    module = Wide()
    trainer, _ = fit(None, epochs=1, module=module, data=data(), limit_val_batches=0)
    steady = steady_tensors(trainer)
    weights = [module.layers[0].weight, module.layers[2].weight]
    moments = [state[name] for state in trainer.optimizers[0].state.values() for name in ("exp_avg", "exp_avg_sq")]
    large = [one for one in [*weights, *moments] if one.ndim == 2]
    assert {key: id(one) for key, one in steady.items()} == {one.data_ptr(): id(one) for one in large}
    assert module.layers[1].running_mean.data_ptr() not in steady
