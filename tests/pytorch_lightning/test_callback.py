"""The Lightning callback as its user meets it: what can be asked for, refused, named and done twice."""

from __future__ import annotations

import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning_pl
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from ckpt_callbacks import (
    ConfigurationError,
    CorruptSnapshotError,
    ResumeError,
    Run,
    UnstorableError,
    every_epochs,
    every_steps,
    keep_all,
    on_best,
    on_end,
    on_exception,
    when,
)
from ckpt_callbacks._lightning import state as lightning_state
from ckpt_callbacks.lightning import Checkpointer as LightningCheckpointer
from ckpt_callbacks.pytorch_lightning import Checkpointer
from ckpt_callbacks.saving import reserve
from ckpt_callbacks.store import owner_of
from tests.pytorch_lightning.conftest import Tiny, fit, loader, same

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")


class Remembers(pl.Callback):
    """A user's callback whose state holds whatever it is given."""

    def __init__(self, value: object) -> None:
        self.value = value

    def state_dict(self) -> dict[str, object]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.value = state["value"]


class Grows(Tiny):
    """Makes a module while it trains."""

    def on_train_epoch_end(self) -> None:
        self.more = nn.Linear(1, 1)


class Replays(Tiny):
    """Trains on what it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = [torch.ones(3)]

    def training_step(self, batch, batch_idx):
        self.seen.append(batch[0][0].detach())
        return super().training_step(batch, batch_idx)


class Stream(IterableDataset):
    """Six samples of a memory, with an iterator for their targets that lives on from epoch to epoch."""

    def __init__(self, seen: list[torch.Tensor], targets=None) -> None:
        self.seen, self.targets = seen, targets

    def __iter__(self):
        for index in range(6):
            target = torch.ones(1) if self.targets is None else next(self.targets)
            yield self.seen[index % len(self.seen)], target


class Odd:
    """Can be pickled, and is nothing that JSON knows."""

    def __repr__(self) -> str:
        return "an odd thing"


class Breaks(pl.Callback):
    """Raises at the start of a batch."""

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.global_step == self.batch:
            raise RuntimeError("the user's own error")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run of two epochs, with a snapshot after every step; give directory, module and callback."""
    directory = tmp_path_factory.mktemp("trained") / "run"
    callback = Checkpointer(directory, monitor="val_loss", save=every_steps(1) | on_end(), keep=keep_all())
    _, module = fit(callback)
    return directory, module, callback


def test_the_trainer_takes_it_for_its_checkpoint_callback(tmp_path):
    """It is a `Checkpoint`, so no default ModelCheckpoint joins it and nothing is written elsewhere."""
    callback = Checkpointer(tmp_path / "run")
    trainer, _ = fit(callback, default_root_dir=str(tmp_path))
    assert trainer.checkpoint_callbacks == [callback]
    assert {entry.name for entry in tmp_path.iterdir()} == {"run"}


def test_defaults_keep_the_latest_two_and_the_best(tmp_path):
    """Every epoch is saved; the best one stays beside the latest two, and the links point at them."""
    callback = Checkpointer(tmp_path / "run", monitor="val_loss")
    fit(callback, epochs=5)
    steps = {snapshot.step for snapshot in callback.snapshots()}
    assert {12, 15, callback.best.step} == steps
    assert (tmp_path / "run" / "latest").resolve() == callback.latest.path.resolve()
    assert (tmp_path / "run" / "best").resolve() == callback.best.path.resolve()
    assert callback.best.metrics["val_loss"] == min(s.metrics["val_loss"] for s in callback.snapshots())


def test_metrics_belong_to_the_weights_they_were_measured_on(trained):
    """Only the snapshots right after a validation carry its value."""
    directory, _, _ = trained
    assert {snapshot.step for snapshot in Run(directory).snapshots() if snapshot.metrics} == {3, 6}


def test_best_is_loaded_by_test(trained):
    """`ckpt_path="best"` loads the best snapshot's weights, bit for bit."""
    directory, _, callback = trained
    module = Tiny()
    trainer = pl.Trainer(callbacks=[callback], logger=False, enable_progress_bar=False, accelerator="cpu")
    trainer.test(module, loader(), ckpt_path="best", verbose=False)
    best = Run(directory).best("val_loss").weights()
    assert all((module.state_dict()[name].numpy() == value).all() for name, value in best.items())


@pytest.mark.parametrize("name", ["{run}@4", "{run}/snapshots/{id}"])
def test_a_named_snapshot_is_where_fit_starts(trained, tmp_path, name):
    """`ckpt_path=` takes a reference or a path: the run that starts there ends as the whole one."""
    directory, whole, _ = trained
    path = name.format(run=directory, id=Run(directory).get(4).id)
    callback = Checkpointer(tmp_path / "fork")
    _, module = fit(callback, ckpt_path=path, seed=5)
    assert callback.resumed.step == 4
    assert callback.resumed.snapshot.run_path == directory
    assert same(module, whole)


def test_resume_takes_a_reference(trained, tmp_path):
    """`resume=` forks a run; once the fork has snapshots of its own it carries on with those."""
    directory, whole, _ = trained
    for expected in (4, 6):
        callback = Checkpointer(tmp_path / "fork", resume=f"{directory}@4")
        _, module = fit(callback, seed=5)
        assert callback.resumed.step == expected
        assert same(module, whole)


def test_a_lightning_checkpoint_still_loads(tmp_path):
    """A .ckpt of somebody else goes through Lightning's own reader."""
    trainer, whole = fit(None, epochs=2)
    trainer.save_checkpoint(tmp_path / "other.ckpt")
    callback = Checkpointer(tmp_path / "run")
    _, module = fit(callback, epochs=2, ckpt_path=str(tmp_path / "other.ckpt"), seed=5)
    assert same(module, whole)
    assert callback.resumed is None


def test_a_complete_run_says_so(trained, caplog):
    """Started once more, a finished run restores its last weights, trains nothing and tells how to go on."""
    directory, whole, _ = trained
    callback = Checkpointer(directory, monitor="val_loss", keep=keep_all())
    trainer, module = fit(callback, seed=5)
    assert callback.resumed.complete
    assert "already complete" in str(callback.resumed)
    assert same(module, whole)
    assert trainer.global_step == 6


def test_a_finished_run_trains_on(tmp_path):
    """With more epochs a finished run goes on, and ends as if it had been asked for them at once."""
    fit(Checkpointer(tmp_path / "run"), epochs=2)
    callback = Checkpointer(tmp_path / "run")
    _, longer = fit(callback, epochs=4, seed=5)
    _, whole = fit(None, epochs=4)
    assert not callback.resumed.complete
    assert same(longer, whole)


def test_an_early_stop_stays_a_stop(tmp_path):
    """A run that stopped early does not train on when it is started again."""

    def stopped() -> list[pl.Callback]:
        return [pl.callbacks.EarlyStopping("val_loss", patience=0, min_delta=100.0)]

    fit(Checkpointer(tmp_path / "run"), epochs=9, callbacks=stopped())
    callback = Checkpointer(tmp_path / "run")
    trainer, _ = fit(callback, epochs=9, callbacks=stopped())
    assert callback.resumed.complete
    assert trainer.global_step == 6


def test_must_and_never(trained, tmp_path):
    """`"must"` wants a run, `"never"` wants none; both say what to do."""
    directory, _, _ = trained
    with pytest.raises(ResumeError, match="holds no good full snapshot"):
        fit(Checkpointer(tmp_path / "empty", resume="must"))
    with pytest.raises(ResumeError, match="already holds a run"):
        fit(Checkpointer(directory, resume="never"))


def test_weights_only_snapshots_cannot_be_resumed(tmp_path):
    """`content="weights"` writes the model alone; naming such a snapshot for fit is refused with the alternative."""
    callback = Checkpointer(tmp_path / "run", content="weights")
    fit(callback)
    assert callback.latest.content == "weights"
    with pytest.raises(ResumeError, match="load_weights"):
        fit(Checkpointer(tmp_path / "other"), ckpt_path=callback.best_model_path)


def test_a_named_damaged_snapshot_fails_loudly(trained, tmp_path):
    """Who names a snapshot gets that one or an error, never another."""
    fit(Checkpointer(tmp_path / "run"))
    path = Run(tmp_path / "run").latest.path / "state.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptSnapshotError, match=r"state\.safetensors"):
        fit(Checkpointer(tmp_path / "fork"), ckpt_path=f"{tmp_path}/run@latest")


def test_automatic_resume_steps_over_a_damaged_snapshot(tmp_path, caplog):
    """With the newest snapshot damaged, the one before is taken, the user is told, and the result is the same."""
    _, whole = fit(Checkpointer(tmp_path / "run"), epochs=3)
    damaged = Run(tmp_path / "run").latest
    (damaged.path / "model.safetensors").write_bytes(b"torn")
    callback = Checkpointer(tmp_path / "run")
    with caplog.at_level("INFO"):
        _, module = fit(callback, epochs=3, seed=5)
    assert f"stepped over snapshot {damaged.id}" in caplog.text
    assert callback.resumed.step == 6
    assert same(module, whole)


def test_hyperparameters_may_be_anything(tmp_path):
    """What resume does not need is kept as its repr, without complaint, also with `exact="require"`."""
    module = Tiny(anything=Odd())
    callback = Checkpointer(tmp_path / "run", exact="require")
    fit(callback, module=module)
    assert "an odd thing" in (callback.latest.path / "state.json").read_text()


def test_state_that_cannot_be_stored_is_named_when_training_starts(tmp_path, caplog):
    """With `"require"` it is an error before the first step; with `"warn"` it is said then, and again at resume."""
    with pytest.raises(UnstorableError, match=r"Remembers.*value"):
        fit(Checkpointer(tmp_path / "a", exact="require"), callbacks=[Remembers(lambda: 1)])
    assert not Run(tmp_path / "a").snapshots()
    for epochs in (1, 2):
        callback = Checkpointer(tmp_path / "b")
        with caplog.at_level("INFO"):
            fit(callback, callbacks=[Remembers(lambda: 1)], epochs=epochs)
    assert caplog.text.count("not captured, and a resume will lack it") == 1
    assert callback.resumed.parts["checkpoint.callbacks.Remembers.value"].startswith("not captured")
    assert "not captured: checkpoint.callbacks.Remembers.value" in caplog.text


@pytest.mark.parametrize(
    ("module", "data", "part", "why"),
    [
        (Grows, lambda _: None, "module.more", "made while training"),
        (Replays, lambda module: DataLoader(Stream(module.seen), 4), "module.seen", "the data set reads it"),
        (
            Tiny,
            lambda _: DataLoader(Stream([torch.ones(3)], itertools.repeat(torch.ones(1))), 4),
            "data (data set.targets)",
            "how far an iterator got",
        ),
    ],
)
def test_what_no_resume_can_bring_back_is_named(tmp_path, module, data, part, why):
    """At the first save that finds it."""
    module = module()
    fit(callback := Checkpointer(tmp_path / "run"), module=module, data=data(module))
    named = json.loads((callback.latest.path / "state.json").read_text())["missing"]
    assert why in named[part]


def failing(method: str, call: int) -> Callable[..., Any]:
    """A method of the module, of which a call runs out of memory."""
    original, calls = getattr(Tiny, method), itertools.count(1)

    def fails(*args, **options):
        if next(calls) == call:
            raise RuntimeError("the user's own error")
        return original(*args, **options)

    return fails


# Two epochs of three batches, and three of validation after each: the method, which call of it raises, and after which
# step the boundary before that was.
FAILURES = {
    "in a step": ("training_step", 6, 5),
    "before backward": ("on_before_backward", 5, 4),
    "after an optimizer stepped": ("on_train_batch_end", 5, 4),
    "in a validation": ("validation_step", 5, 5),
    "at an epoch's end": ("on_train_epoch_end", 2, 5),
}


@pytest.fixture
def _holds_always(monkeypatch):
    monkeypatch.setattr(reserve, "AT_ONCE", math.inf)


@pytest.mark.usefixtures("_holds_always")
@pytest.mark.parametrize("failure", FAILURES)
def test_an_error_of_the_user_stays_the_users(tmp_path, caplog, monkeypatch, failure):
    """It is not masked; the boundary before it was held in memory, and is saved: training goes on from there."""
    caplog.set_level("INFO")
    method, call, step = FAILURES[failure]
    monkeypatch.setattr(Tiny, method, failing(method, call))
    with pytest.raises(RuntimeError, match="the user's own error"):
        fit(Checkpointer(tmp_path / "run"), num_sanity_val_steps=0)
    monkeypatch.undo()
    latest = Run(tmp_path / "run").latest
    assert (latest.step, latest.reasons) == (step, ("exception",))
    assert f"its state after step {step}, which was held in memory, is saved" in caplog.text
    callback = Checkpointer(tmp_path / "run")
    _, module = fit(callback, seed=5, num_sanity_val_steps=0)
    assert callback.resumed.step == step
    assert same(module, fit(None, num_sanity_val_steps=0)[1])


class Worse(pl.Callback):
    """Fails when it hears of a failure, or when training ends."""

    def __init__(self, hook: str) -> None:
        setattr(self, hook, self._fail)

    def _fail(self, *_):
        raise KeyError("a callback's own error")


@pytest.mark.usefixtures("_holds_always")
@pytest.mark.parametrize(("hook", "breaks", "step"), [("on_exception", 5, 5), ("on_train_end", 99, 6)])
def test_an_error_of_another_callback_costs_nothing(tmp_path, hook, breaks, step):
    """What is held is saved, nothing stays locked, and signals go where they went."""
    with pytest.raises(KeyError, match="a callback's own error"):
        fit(Checkpointer(tmp_path / "run", save=on_exception()), callbacks=[Worse(hook), Breaks(breaks)])
    assert (Run(tmp_path / "run").latest.step, owner_of(tmp_path / "run")) == (step, None)
    assert "Signals" not in repr(signal.getsignal(signal.SIGTERM))
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # Lightning's own are left, as it was interrupted


@pytest.mark.usefixtures("_holds_always")
def test_a_signal_in_a_step_that_fails_is_obeyed(tmp_path, caplog):
    """By the usual exit code, after what is held is saved; the step's error is told."""

    class Preempted(pl.Callback):
        def on_train_batch_start(self, trainer, *_):
            if trainer.global_step == 5:
                signal.raise_signal(signal.SIGTERM)
                raise RuntimeError("the user's own error")

    with pytest.raises(SystemExit) as left:
        fit(Checkpointer(tmp_path / "run"), callbacks=[Preempted()])
    assert left.value.code == 143
    assert "RuntimeError: the user's own error" in caplog.text
    assert Run(tmp_path / "run").latest.step == 5


@pytest.mark.usefixtures("_holds_always")
def test_an_error_while_data_are_loaded(tmp_path):
    """The boundary is right before."""

    class Unreadable(TensorDataset):
        def __getitem__(self, index):
            seen.append(index)
            if len(seen) == 18:
                raise OSError("the disk is away")
            return super().__getitem__(index)

    seen: list[int] = []
    data = DataLoader(Unreadable(*loader().dataset.tensors), batch_size=4, shuffle=True)
    with pytest.raises(OSError, match="the disk is away"):
        fit(Checkpointer(tmp_path / "run"), data=data)
    assert Run(tmp_path / "run").latest.step == 4
    assert same(fit(Checkpointer(tmp_path / "run"), seed=5)[1], fit(None)[1])


@pytest.mark.usefixtures("_holds_always")
def test_who_does_not_ask_for_it_gets_no_snapshot_of_an_exception(tmp_path):
    """Nor is a state held."""
    with pytest.raises(RuntimeError, match="the user's own error"):
        fit(callback := Checkpointer(tmp_path / "run", save=every_epochs(1)), callbacks=[Breaks(5)])
    assert callback.latest.step == 3


def test_manual_snapshot(tmp_path):
    """`save()` from any hook is honoured at the next boundary and gives the snapshot."""

    class Asks(pl.Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == 2:
                self.wanted = callback.save("look here")

    asks = Asks()
    callback = Checkpointer(tmp_path / "run", save=on_end(), keep=keep_all())
    fit(callback, callbacks=[asks])
    snapshot = asks.wanted.result(timeout=10)
    assert (snapshot.step, snapshot.note, snapshot.reasons) == (2, "look here", ("manual: look here",))


def test_two_callbacks_in_one_trainer(tmp_path):
    """Each saves to its own directory by its own rules; the farthest snapshot of both is where a resume goes on."""

    often = Checkpointer(tmp_path / "often", save=every_steps(2))
    seldom = Checkpointer(tmp_path / "seldom", save=every_epochs(1))
    with pytest.raises(RuntimeError, match="the user's own error"):
        fit(seldom, callbacks=[often, Breaks(5)])
    for lost, expected in (("none", 4), ("often", 3)):
        shutil.copytree(tmp_path, copy := tmp_path.with_name(f"{tmp_path.name}-{lost}"))
        shutil.rmtree(copy / lost, ignore_errors=True)
        often, seldom = Checkpointer(copy / "often", save=every_steps(2)), Checkpointer(copy / "seldom")
        _, module = fit(seldom, callbacks=[often], seed=5)
        assert (often.resumed or seldom.resumed).step == expected
        assert same(module, fit(None)[1])


def test_fit_twice_in_one_process(tmp_path):
    """The same callback serves a second fit, with another trainer, which goes on where the first ended."""
    callback = Checkpointer(tmp_path / "run")
    fit(callback, epochs=2)
    _, module = fit(callback, epochs=4, seed=5)
    assert callback.resumed.step == 6
    assert same(module, fit(None, epochs=4)[1])


def test_fast_dev_run_writes_nothing(tmp_path):
    """A trial run leaves no run behind."""
    fit(Checkpointer(tmp_path / "run"), fast_dev_run=True)
    assert not (tmp_path / "run").exists()


def test_the_other_package(tmp_path):
    """Trainer and callback must come from the same package; the error says which import to use."""
    trainer = lightning_pl.Trainer(logger=False, accelerator="cpu")
    with pytest.raises(ConfigurationError, match=r"ckpt_callbacks\.lightning"):
        Checkpointer(tmp_path / "run").setup(trainer, None, "fit")
    assert issubclass(LightningCheckpointer, lightning_pl.callbacks.Checkpoint)


SIGTERM_JOB = """
import os, signal, sys, time, warnings
warnings.simplefilter("ignore")
import pytorch_lightning as pl
from ckpt_callbacks import keep_all, on_signal
from ckpt_callbacks.pytorch_lightning import Checkpointer
from ckpt_callbacks.signals import ECHO_SECONDS
from torch.utils.data import DataLoader
from tests.pytorch_lightning.conftest import fit, loader

run, number, hook, at, how = sys.argv[1], signal.Signals[sys.argv[2]], sys.argv[3], int(sys.argv[4]), sys.argv[5:]

signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background, a shell has it ignored

class Preempted(pl.Callback):
    struck = False

    def strike(self, trainer, *_):
        if at < 0 or trainer.global_step == at and not self.struck:
            self.struck = True
            if how == ["group"]:
                os.killpg(0, number)
                time.sleep(0.5)  # the workers die meanwhile
            else:
                os.kill(os.getpid(), number)
            if how == ["echo"]:
                os.kill(os.getpid(), number)
            elif how == ["twice"]:
                time.sleep(0 if number == signal.SIGINT else ECHO_SECONDS)
                os.kill(os.getpid(), number)
                print("went on")

preempted = Preempted()
setattr(preempted, hook, preempted.strike)
options = {"save": on_signal(sys.argv[2], leave=False), "keep": keep_all()} if how == ["goes on"] else {}
data = DataLoader(loader().dataset, 4, shuffle=True, num_workers=2) if how == ["group"] else None
before = signal.getsignal(signal.SIGTERM)
try:
    fit(Checkpointer(run, **options), callbacks=[preempted], data=data)
finally:
    if signal.getsignal(signal.SIGTERM) == before:
        print("handlers are back")
print("trained on")
"""


def preempted(tmp_path, name, hook, at):
    """A run that gets a signal in some hook at some step (at -1: every time)."""
    return [sys.executable, "-c", SIGTERM_JOB, str(tmp_path / "run"), name, hook, str(at)]


@pytest.mark.parametrize(
    ("name", "hook", "at", "saved"),
    [
        ("SIGTERM", "on_train_batch_end", 4, 4),
        ("SIGTERM", "on_train_batch_start", 4, 5),
        ("SIGTERM", "on_validation_end", 3, 3),
        ("SIGTERM", "on_train_epoch_end", 3, 3),
        ("SIGTERM", "on_validation_batch_start", 3, 3),  # the validation is finished first
        ("SIGUSR1", "on_validation_batch_start", 3, 3),
        ("SIGINT", "on_validation_batch_start", 3, 3),
    ],
)
def test_a_signal_saves_before_leaving(tmp_path, name, hook, at, saved):
    """Asked to leave, a run saves at the next boundary, once, and goes; started again, it ends the same."""
    done = subprocess.run(preempted(tmp_path, name, hook, at), capture_output=True, text=True)
    assert done.returncode == 128 + signal.Signals[name], done.stderr
    (latest,) = [one for one in Run(tmp_path / "run").snapshots() if f"signal {name}" in one.reasons]
    assert latest.step == saved == Run(tmp_path / "run").latest.step
    assert "trained on" not in done.stdout
    callback = Checkpointer(tmp_path / "run")
    _, module = fit(callback, seed=5)
    assert callback.resumed.step == saved
    assert same(module, fit(None)[1])


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_a_signal_to_the_whole_group_ends_the_workers_and_loses_nothing(tmp_path, name):
    """As schedulers send it: the loader's workers die of it, and the batch that is trained on is saved all the same."""
    command = [*preempted(tmp_path, name, "on_train_batch_start", 2), "group"]
    done = subprocess.run(command, capture_output=True, text=True, start_new_session=True)
    assert done.returncode == 128 + signal.Signals[name], done.stderr
    assert Run(tmp_path / "run").latest.step == 3


def test_a_signal_that_comes_with_its_echo_is_one(tmp_path):
    """A scheduler signals the group, the launching script passes its own on: the run saves, and leaves."""
    command = preempted(tmp_path, "SIGTERM", "on_validation_batch_start", 3)
    done = subprocess.run([*command, "echo"], capture_output=True, text=True)
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert Run(tmp_path / "run").latest.step == 3


@pytest.mark.parametrize(
    ("hook", "at"), [("on_train_batch_start", 2), ("on_validation_batch_start", 3), ("on_train_batch_end", 3)]
)
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_second_signal_is_obeyed_at_once(tmp_path, name, hook, at):
    """Who can't wait need not: fit is left amid the hook, by the usual exit code, and nothing stays behind."""
    command = preempted(tmp_path, name, hook, at)
    done = subprocess.run([*command, "twice"], capture_output=True, text=True)
    assert done.returncode == 128 + signal.Signals[name], done.stderr
    assert "went on" not in done.stdout
    assert "handlers are back" in done.stdout
    run = Run(tmp_path / "run")
    assert (run.latest, owner_of(tmp_path / "run")) == (None, None)


class Drawn(IterableDataset):
    """Data that must be drawn again to reach a place; it tells what a run notes meanwhile."""

    def __init__(self, run=None, at=None, act=None) -> None:
        self.run, self.at, self.act, self.notes = run, at, act, []

    def __iter__(self):
        for number in range(6):
            if self.run is not None and (self.run / ".resuming").exists():
                self.notes.append(json.loads((self.run / ".resuming").read_text())["deaths"])
            if number == self.at:
                self.act()
            yield torch.full((4, 3), float(number)), torch.ones(4, 1)


def killed_amid_an_epoch(directory):
    """A run whose newest snapshot is five batches into the first epoch of six."""
    with pytest.raises(RuntimeError):
        fit(Checkpointer(directory, save=every_steps(5)), data=DataLoader(Drawn(), None), callbacks=[Breaks(5)])
    assert Run(directory).latest.step == 5


def test_a_death_amid_a_replay_is_not_the_snapshots(tmp_path, monkeypatch):
    """Batches are the user's code, and may take longer than a scheduler lets a job live; what is put back counts."""
    killed_amid_an_epoch(tmp_path / "run")
    data, putting = Drawn(tmp_path / "run"), []
    put_back = lightning_state.put_back

    def noted(*args):
        putting.append(json.loads((tmp_path / "run" / ".resuming").read_text())["deaths"])
        put_back(*args)

    monkeypatch.setattr(lightning_state, "put_back", noted)
    callback = Checkpointer(tmp_path / "run", save=every_steps(5))
    fit(callback, data=DataLoader(data, None))
    assert callback.resumed.replayed == 5
    assert (set(data.notes), putting) == ({0}, [1])
    assert not (tmp_path / "run" / ".resuming").exists()


@pytest.mark.parametrize("save", [every_steps(5), None], ids=["nobody listens", "on_signal"])
def test_a_signal_amid_a_replay_is_obeyed_at_once(tmp_path, save):
    """Lightning only notes SIGTERM, also if no trigger of ours asks for it."""
    killed_amid_an_epoch(tmp_path / "run")
    before, went_on = signal.getsignal(signal.SIGTERM), []

    def preempt():
        os.kill(os.getpid(), signal.SIGTERM)
        went_on.append(True)

    with pytest.raises(SystemExit) as left:
        fit(Checkpointer(tmp_path / "run", save=save), data=DataLoader(Drawn(at=2, act=preempt), None))
    assert (left.value.code, went_on) == (143, [])
    assert signal.getsignal(signal.SIGTERM) == before
    assert not (tmp_path / "run" / ".resuming").exists()


def test_a_signal_may_save_without_an_end(tmp_path):
    """`kill -USR2` takes a snapshot of a run that goes on; each time."""
    command = preempted(tmp_path, "SIGUSR2", "on_train_batch_start", -1)
    done = subprocess.run([*command, "goes on"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "trained on" in done.stdout
    assert [one.step for one in Run(tmp_path / "run").snapshots()] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("hook", ["on_validation_batch_start", "on_train_epoch_start", "on_train_batch_end"])
def test_an_error_between_boundaries_saves_nothing_unclean(tmp_path, hook):
    """Wherever the user's code raises, what is resumed from is exact; nothing stays locked, patched or running."""
    breaks = Breaks(3)
    setattr(breaks, hook, lambda trainer, *_: Breaks.on_train_batch_start(breaks, trainer, None, None, None))
    breaks.on_train_batch_start = lambda *_: None
    callback = Checkpointer(tmp_path / "run", save=every_steps(1))
    before = set(threading.enumerate())
    with pytest.raises(RuntimeError, match="the user's own error"):
        fit(callback, callbacks=[breaks])
    assert owner_of(tmp_path / "run") is None
    assert set(threading.enumerate()) <= before
    callback = Checkpointer(tmp_path / "run")
    _, module = fit(callback, seed=5)
    assert callback.resumed is not None
    assert same(module, fit(None)[1])


def test_the_best_weights_are_back_when_training_ends(tmp_path):
    """With `restore_best=True`: also if Lightning's EarlyStopping ended it, and if it was complete before. The last
    snapshot keeps the last weights, so that more epochs go on exactly."""
    rising = pl.callbacks.LambdaCallback(
        on_validation_end=lambda trainer, _: trainer.callback_metrics.update(score=torch.tensor(-trainer.global_step))
    )
    stopping = pl.callbacks.EarlyStopping("score", mode="max", patience=1)
    options = {"monitor": "score", "mode": "max", "restore_best": True}
    _, module = fit(Checkpointer(tmp_path / "run", **options), epochs=9, callbacks=[rising, stopping])
    run = Run(tmp_path / "run")
    assert (run.best().step, run.latest.step) == (3, 6)

    def holds(module, snapshot) -> bool:
        weights = snapshot.weights()
        return all(np.array_equal(value.numpy(), weights[name]) for name, value in module.state_dict().items())

    assert holds(module, run.best())
    assert not holds(module, run.latest)
    again = [rising, pl.callbacks.EarlyStopping("score", mode="max", patience=1)]
    assert holds(fit(Checkpointer(tmp_path / "run", **options), epochs=9, callbacks=again, seed=5)[1], run.best())


def test_a_best_snapshot_that_was_damaged_is_not_put_back(tmp_path, caplog):
    """The next best is, and fit ends well. The damage is named, and nothing is said that is not so."""
    falling = pl.callbacks.LambdaCallback(
        on_validation_end=lambda trainer, _: trainer.callback_metrics.update(score=torch.tensor(trainer.global_step))
    )

    def damage(trainer, module) -> None:
        if trainer.current_epoch == 2:
            callback.wait()
            (callback.best.path / "model.safetensors").write_bytes(b"none")

    spoiling = pl.callbacks.LambdaCallback(on_train_epoch_start=damage)
    callback = Checkpointer(tmp_path, monitor="score", mode="min", restore_best=True, keep=keep_all())
    caplog.set_level("INFO")
    _, module = fit(callback, epochs=3, callbacks=[falling, spoiling])
    best = Run(tmp_path).best()
    assert best.step == 6
    assert all(np.array_equal(value.numpy(), best.weights()[name]) for name, value in module.state_dict().items())
    assert "It is set aside as damaged/000000003-" in caplog.text
    assert caplog.text.count("snapshot now: ") == caplog.text.count(f"snapshot now: {best.id}") == 1


def test_a_request_to_stop_ends_the_fit_and_the_same_command_carries_on(tmp_path):
    """`ckpt request RUN --stop`: saved, left with 0, and not taken for the end of the training."""

    class Asks(pl.Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == 2:
                Run(tmp_path / "run").request("maintenance", stop=True)
                while not callback._requests:
                    time.sleep(0.01)

    callback = Checkpointer(tmp_path / "run")
    with pytest.raises(SystemExit) as left:
        fit(callback, callbacks=[Asks()])
    assert left.value.code == 0
    latest = Run(tmp_path / "run").latest
    assert (latest.step, latest.note, latest.manifest.finished) == (2, "maintenance", False)
    assert list((tmp_path / "run" / "requests").iterdir()) == []
    _, module = fit(Checkpointer(tmp_path / "run"), seed=5)
    assert same(module, fit(None)[1])


def test_a_request_to_stop_does_not_disturb_an_end_that_is_under_way(tmp_path):
    """Lightning leaves for SIGTERM, which nobody of ours listens to: its handlers are put back all the same."""

    class Asks(pl.Callback):
        def on_train_batch_end(self, trainer, *_):
            Run(tmp_path / "run").request("maintenance", stop=True)
            while not callback._requests:
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGTERM)

    callback = Checkpointer(tmp_path / "run", save=on_exception())
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as left:
        fit(callback, callbacks=[Asks()])
    assert left.value.code == 143
    assert signal.getsignal(signal.SIGTERM) == before
    assert owner_of(tmp_path / "run") is None
    assert Run(tmp_path / "run").latest.reasons == ("exception", "manual: maintenance")


def test_a_misspelled_monitor_is_told_in_the_first_epoch(tmp_path, caplog):
    """With the name that was meant; if nothing else would save, training ends there."""
    fit(Checkpointer(tmp_path / "run", monitor="val_lss", mode="min"), epochs=1)
    assert "'val_lss' was not measured" in caplog.text
    assert "Did you mean 'val_loss'?" in caplog.text
    with pytest.raises(ConfigurationError, match="no snapshot would ever be taken"):
        fit(Checkpointer(tmp_path / "other", monitor="val_lss", mode="min", save=on_best()))


def test_a_metric_that_no_validation_measures_is_told_after_the_first_one(tmp_path, caplog):
    """Also one that is like no other, in a long epoch."""
    told = []

    class Looks(pl.Callback):
        def on_train_batch_start(self, *_):
            told.append("'val_f1' was not measured" in caplog.text)

    callback = Checkpointer(tmp_path / "run", monitor="val_f1", mode="max")
    fit(callback, callbacks=[Looks()], epochs=1, val_check_interval=1)
    assert told == [False, True, True]


class Manual(Tiny):
    """Gives no loss; logs one that is no number from the second epoch on."""

    automatic_optimization = False

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.manual_backward(loss)
        self.optimizers().step()
        self.log("train_loss", loss if self.current_epoch == 0 else torch.tensor(float("nan")))


def test_a_logged_loss_that_is_no_number_is_unhealthy_though_no_step_gave_it(tmp_path):
    """Manual optimization; what is monitored looks well."""
    callback = Checkpointer(tmp_path / "run", monitor="val_loss", save=every_epochs(1), keep=keep_all())
    fit(callback, module=Manual(), epochs=2)
    assert [one.manifest.unhealthy for one in callback.snapshots()] == [None, "train_loss is nan"]
    assert callback.best.epoch == 1


def test_a_function_that_counts_fires_as_often_as_it_is_asked(tmp_path):
    """Once at each boundary, also where an epoch ends and a metric is missing."""
    count = itertools.count(1)
    counts = when(lambda m: m.progress.batch == 0 and next(count) % 2 == 0)
    callback = Checkpointer(tmp_path / "run", monitor="val_lss", mode="min", save=counts, keep=keep_all())
    fit(callback, epochs=5)
    assert [one.epoch for one in callback.snapshots()] == [1, 3, 5]


def test_who_saves_on_an_exception_only_is_told_when_training_starts(tmp_path, caplog):
    """Nothing would be saved otherwise, silently."""
    with pytest.raises(RuntimeError, match="the user's own error"):
        fit(Checkpointer(tmp_path / "run", save=on_exception()), callbacks=[Breaks(0)])
    assert "nothing that save=on_exception() waits for happens" in caplog.text


def test_an_early_stop_goes_on_from_a_snapshot_that_is_named(tmp_path):
    """Who points at a snapshot wants to train on from it, also if the run had stopped by itself."""
    stopping = [pl.callbacks.EarlyStopping("val_loss", patience=0, min_delta=100.0)]
    fit(Checkpointer(tmp_path / "run"), epochs=9, callbacks=stopping)
    trainer, _ = fit(Checkpointer(tmp_path / "fork", resume=f"{tmp_path}/run@latest"), epochs=3)
    assert trainer.global_step == 9


def test_a_fork_outlives_its_origin(tmp_path):
    """A killed fork is started again by the same command, also if the run it came from is gone."""
    fit(Checkpointer(tmp_path / "run"), epochs=1)
    reference = f"{tmp_path}/run@latest"
    fit(Checkpointer(tmp_path / "fork", resume=reference), epochs=2)
    shutil.rmtree(tmp_path / "run")
    callback = Checkpointer(tmp_path / "fork", resume=reference)
    fit(callback, epochs=3)
    assert callback.resumed.step == 6


def test_saves_wait_for_nothing_but_are_durable_when_fit_returns(tmp_path):
    """In the background or not, the same snapshots are there when fit returns."""
    for background in (True, False):
        callback = Checkpointer(
            tmp_path / str(background), save=every_epochs(1), keep=keep_all(), background=background
        )
        fit(callback, epochs=3)
        assert [snapshot.step for snapshot in callback.snapshots()] == [3, 6, 9]


class Backbone(Tiny):
    """A large layer that isn't trained, and one that is."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(600, 600).requires_grad_(False)

    def configure_optimizers(self):
        return torch.optim.Adam(self.layer.parameters(), lr=0.1)


def test_a_frozen_layer_is_written_once(tmp_path):
    """From the first snapshot on it lies in a file of its own, which all snapshots share; a resumed run's, too."""
    for epochs in (2, 3):
        _, module = fit(Checkpointer(tmp_path, keep=keep_all()), epochs=epochs, module=Backbone())
    snapshots = Run(tmp_path).snapshots()
    assert len(snapshots) >= 3
    files = {(one.path / "model-00002-of-00002.safetensors").stat().st_ino for one in snapshots}
    assert len(files) == 1
    assert snapshots[-1].weights()["body.weight"].tobytes() == module.body.weight.numpy().tobytes()
    assert Run(tmp_path).verify().ok


def test_memory_is_let_go_of_after_fit(tmp_path):
    """What snapshots were staged in is not kept for a fit that may never come."""
    callback = Checkpointer(tmp_path)
    fit(callback)
    assert callback._saver._arena._idle is None


class Normalized(Tiny):
    """Has running statistics, which move with every step."""

    def __init__(self, lr: float) -> None:
        super().__init__()
        self.layer, self.lr = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 1)), lr

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr)


@pytest.mark.parametrize(("lr", "told"), [(0.0, 1), (0.1, 0)])
def test_trained_weights_that_stand_still_are_told(tmp_path, caplog, lr, told):
    """Though running statistics move."""
    _, module = fit(Checkpointer(tmp_path / "run"), module=Normalized(lr))
    assert module.layer[0].running_mean.any()
    assert caplog.text.count("steps went on from 3 to 6, but no weight has changed") == told


class Skips(Normalized):
    """Skips a batch of which the loss is NaN; but its running statistics have seen it. Has a mask of infinities."""

    def __init__(self) -> None:
        super().__init__(0.1)
        self.register_buffer("mask", torch.full((2, 2), -torch.inf).triu(1))

    def training_step(self, batch, batch_idx):
        if self.global_step == 4:
            self.layer(batch[0] * torch.nan)
            return None
        return super().training_step(batch, batch_idx)


def test_running_statistics_that_are_no_numbers_are_no_best(tmp_path, caplog):
    """The weights are fine, and validation says whatever it says; the infinities of a mask are meant."""
    falling = pl.callbacks.LambdaCallback(
        on_validation_end=lambda trainer, _: trainer.callback_metrics.update(score=torch.tensor(-trainer.global_step))
    )
    callback = Checkpointer(tmp_path / "run", monitor="score", mode="min", restore_best=True)
    _, module = fit(callback, epochs=4, module=Skips(), callbacks=[falling])
    assert [one.manifest.unhealthy for one in callback.snapshots()] == [
        None,
        *["layer.0.running_mean is not finite"] * 2,
    ]
    assert callback.best.step == 3
    assert all(value.isfinite().all() for name, value in module.layer.state_dict().items())
    assert caplog.text.count("is not healthy") == 1


class Peculiar(torch.Tensor):
    """A kind of tensor with a state of its own."""


class Counts(nn.Module):
    """Has an extra state, of which one part can be stored and changes, and one can't."""

    def __init__(self) -> None:
        super().__init__()
        self.count, self.sparse = 0, torch.eye(2).to_sparse()

    def forward(self, x):
        self.count += self.training
        return x

    def get_extra_state(self):
        return {"count": self.count, "parts": (self.sparse, self.count)}

    def set_extra_state(self, state):
        self.count, (self.sparse, again) = state["count"], state["parts"]
        assert again == self.count


class Holds(Tiny):
    """Has something in its state that no file of tensors can hold, and that training does not change."""

    def __init__(self, what: str) -> None:
        super().__init__()
        if what == "lazy":
            self.unused = nn.LazyLinear(3)
        elif what == "in an extra state":
            self.layer.insert(0, Counts())
        else:
            self.register_buffer("held", HELD[what]())


HELD = {
    "sparse": lambda: torch.eye(4).to_sparse(),
    "csr": lambda: torch.eye(4).to_sparse_csr(),
    "quantized": lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
    "of another class": lambda: torch.ones(3).as_subclass(Peculiar),
}


LACKING = {"lazy": {"unused.weight", "unused.bias"}, "in an extra state": {"layer.0._extra_state.parts.0"}}


@pytest.mark.parametrize("what", [*HELD, *LACKING])
@pytest.mark.filterwarnings("ignore:.*(Sparse CSR|[Ll]azy|quantized|torch.ao)")
def test_what_cannot_be_stored_is_named_and_left_as_the_script_makes_it(tmp_path, what):
    """A graph's adjacency, say: training goes on after a resume, and a test of a snapshot has it."""

    def train(directory: Path, epochs: int) -> tuple[Checkpointer, pl.Trainer, Holds]:
        pl.seed_everything(3, verbose=False)
        callback = Checkpointer(directory, monitor="val_loss")
        return callback, *fit(callback, epochs=epochs, module=Holds(what))

    _, _, straight = train(tmp_path / "straight", 4)
    train(tmp_path / "run", 2)
    again, trainer, module = train(tmp_path / "run", 4)
    assert again.resumed.step == 6
    lacking = {path for path, how in again.resumed.parts.items() if "not captured" in how}
    assert lacking == LACKING.get(what, {"held"})
    assert str(module.state_dict().get("held")) == str(straight.state_dict().get("held"))
    assert getattr(module.layer[0], "count", None) == getattr(straight.layer[0], "count", None)
    assert all(torch.equal(a, b) for a, b in zip(module.layer.parameters(), straight.layer.parameters(), strict=True))
    assert trainer.test(Holds(what), loader(), ckpt_path=str(again.latest.path), verbose=False)
