"""The Keras callback as its user meets it: what can be asked for, refused, named and done twice."""

from __future__ import annotations

import contextlib
import gc
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest
import tensorflow as tf

from ckpt_callbacks import (
    ConfigurationError,
    InexactError,
    ResumeError,
    Run,
    SnapshotNotFoundError,
    UnstorableError,
    every_epochs,
    every_steps,
    keep_all,
    keep_last,
    on_best,
    on_end,
    on_exception,
)
from ckpt_callbacks.keras import Checkpointer, load_weights, private
from ckpt_callbacks.keras import state as keras_state
from ckpt_callbacks.keras.fit import INTERVAL
from ckpt_callbacks.saving import reserve
from ckpt_callbacks.state.memory.pages import fresh
from ckpt_callbacks.store import owner_of

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")

X = np.random.default_rng(0).normal(size=(12, 3)).astype("float32")
Y = X.sum(1, keepdims=True)


def build(width: int = 1) -> keras.Model:
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dropout(0.2), keras.layers.Dense(width)])
    model.compile(keras.optimizers.Adam(0.1), "mse")
    return model


def fit(*callbacks, epochs: int = 2, model: keras.Model | None = None, **options):
    """Train for some epochs of three batches; give the model and its history."""
    keras.utils.set_random_seed(1)
    model = model or build()
    options = {"batch_size": 4, "validation_split": 0.25, "verbose": 0, **options}
    return model, model.fit(X, Y, epochs=epochs, callbacks=list(callbacks), **options)


def same(a: keras.Model, b: keras.Model) -> bool:
    """Whether two models have the same weights, bit for bit."""
    return all(x.tobytes() == y.tobytes() for x, y in zip(a.get_weights(), b.get_weights(), strict=True))


class StopAt(keras.callbacks.Callback):
    """Raises at a step, as an out-of-memory error would."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.optimizer.iterations) == self.step:
            raise RuntimeError("the user's own error")


def raises(hook: str, kind: type[BaseException]) -> keras.callbacks.Callback:
    """Raises in a hook."""

    def act(*_, **__):
        raise kind

    return keras.callbacks.LambdaCallback(**{hook: act})


class Remembers(keras.callbacks.Callback):
    """A user's callback with state, and with something that is none."""

    def __init__(self, anything: object = None) -> None:
        super().__init__()
        self.epochs_seen: list[int] = []
        self.anything = anything

    def on_epoch_end(self, epoch, logs=None):
        self.epochs_seen.append(epoch)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run of two epochs, with a snapshot after every step; give directory, model and callback."""
    directory = tmp_path_factory.mktemp("trained") / "run"
    callback = Checkpointer(directory, monitor="val_loss", save=every_steps(1) | on_end(), keep=keep_all())
    model, _ = fit(callback)
    return directory, model, callback


def test_a_death_amid_a_replay_is_not_the_snapshots(tmp_path, monkeypatch):
    """Batches are the user's code, and may take longer than a scheduler lets a job live; what is put back counts."""
    notes, putting, put_back = [], [], keras_state.put_back

    def deaths():
        return json.loads((tmp_path / "run" / ".resuming").read_text())["deaths"]

    def batches():
        for number in range(4):
            if (tmp_path / "run" / ".resuming").exists():
                notes.append(deaths())
            yield X[number : number + 4], Y[number : number + 4]

    def noted(*args, **options):
        putting.append(deaths())
        put_back(*args, **options)

    options = {"save": every_steps(3), "keep": keep_all(), "deterministic_data": True}

    def train(*callbacks):
        build().fit(batches(), steps_per_epoch=4, epochs=1, callbacks=callbacks, verbose=0)

    with pytest.raises(RuntimeError):
        train(StopAt(4), Checkpointer(tmp_path / "run", **options))
    monkeypatch.setattr(keras_state, "put_back", noted)
    callback = Checkpointer(tmp_path / "run", **options)
    train(callback)
    assert callback.resumed.replayed == 3
    assert set(notes) == {0}
    assert putting == [1]
    assert not (tmp_path / "run" / ".resuming").exists()


def test_snapshots_and_their_metrics(trained):
    """Every step was saved; only what was validated carries metrics; the best has the lowest."""
    _, _, callback = trained
    snapshots = callback.snapshots()
    assert [snapshot.step for snapshot in snapshots] == [1, 2, 3, 4, 5, 6]
    assert [snapshot.step for snapshot in snapshots if snapshot.metrics] == [3, 6]
    assert callback.best.metrics["val_loss"] == min(s.metrics["val_loss"] for s in snapshots if s.metrics)
    assert (callback.latest.epoch, callback.latest.progress.batch) == (2, 0)


def test_history_covers_the_whole_run(tmp_path):
    """After an interruption `fit` returns the history of all epochs, and a user's callback remembers too."""
    with pytest.raises(RuntimeError, match="the user's own error"):
        fit(Checkpointer(tmp_path / "run", save=every_steps(1)), Remembers(), StopAt(8), epochs=4)
    callback, remembers = Checkpointer(tmp_path / "run", save=every_steps(1)), Remembers()
    model, history = fit(callback, remembers, StopAt(99), epochs=4)
    whole, reference = fit(epochs=4)
    assert callback.resumed.step == 7
    assert history.epoch == [0, 1, 2, 3]
    assert history.history == reference.history
    assert remembers.epochs_seen == [0, 1, 2, 3]
    assert same(model, whole)


def test_configuration_belongs_to_the_script(tmp_path):
    """Only what changed in another callback is state: a patience that was raised before the resume stays raised."""
    fit(Checkpointer(tmp_path / "run"), keras.callbacks.EarlyStopping(patience=3), epochs=2)
    stopping = keras.callbacks.EarlyStopping(patience=7)
    fit(Checkpointer(tmp_path / "run"), stopping, epochs=3)
    assert stopping.patience == 7
    assert stopping.best is not None


def test_a_complete_run_says_so(trained):
    """Started once more, a finished run restores its last weights and trains nothing."""
    directory, model, _ = trained
    callback = Checkpointer(directory, keep=keep_all())
    again, history = fit(callback)
    assert callback.resumed.complete
    assert "already complete" in str(callback.resumed)
    assert same(again, model)
    assert history.epoch == [0, 1]


def test_a_finished_run_trains_on(tmp_path):
    """With more epochs a finished run goes on, and ends as if it had been asked for them at once."""
    fit(Checkpointer(tmp_path / "run"))
    callback = Checkpointer(tmp_path / "run")
    longer, history = fit(callback, epochs=4)
    whole, reference = fit(epochs=4)
    assert not callback.resumed.complete
    assert history.history == reference.history
    assert same(longer, whole)


def test_fit_twice_in_one_process(tmp_path):
    """The same callback serves a second fit of the same model, which goes on where the first ended."""
    callback = Checkpointer(tmp_path / "run")
    model, _ = fit(callback)
    fit(callback, epochs=4, model=model)
    assert callback.resumed.step == 6
    assert same(model, fit(epochs=4)[0])


def test_two_callbacks_in_one_fit(tmp_path):
    """Each saves to its own directory by its own rules; the farthest snapshot of both is where a resume goes on."""
    often = Checkpointer(tmp_path / "often", save=every_steps(2))
    seldom = Checkpointer(tmp_path / "seldom", save=every_epochs(1))
    with pytest.raises(RuntimeError, match="the user's own error"):
        fit(seldom, often, StopAt(5))
    often.wait()
    seldom.wait()
    for lost, expected in (("none", 4), ("often", 3)):
        shutil.copytree(tmp_path, copy := tmp_path.with_name(f"{tmp_path.name}-{lost}"))
        shutil.rmtree(copy / lost, ignore_errors=True)
        often, seldom = Checkpointer(copy / "often", save=every_steps(2)), Checkpointer(copy / "seldom")
        model, _ = fit(seldom, often)
        assert (often.resumed or seldom.resumed).step == expected
        assert same(model, fit()[0])


def test_resume_takes_a_reference(trained, tmp_path):
    """`resume=` forks a run from any snapshot; the fork ends as the whole run."""
    directory, whole, _ = trained
    callback = Checkpointer(tmp_path / "fork", resume=f"{directory}@4")
    model, _ = fit(callback)
    assert callback.resumed.step == 4
    assert same(model, whole)


def test_another_model_is_refused(trained):
    """A model that does not fit is refused before anything is assigned, with names and shapes."""
    directory, _, _ = trained
    model = build(width=5)
    before = model.get_weights()
    with pytest.raises(ResumeError, match=r"kernel.*\[3, 1\] in the snapshot.*\[3, 5\] here"):
        fit(Checkpointer(directory), epochs=5, model=model)
    assert all((x == y).all() for x, y in zip(before, model.get_weights(), strict=True))


def test_load_weights(trained):
    """A snapshot's weights go into a model of any name, whole or in part."""
    directory, model, _ = trained
    other = build()
    report = load_weights(other, f"{directory}@latest")
    assert same(other, model)
    assert (report.missing, report.unexpected) == ((), ())
    with pytest.raises(SnapshotNotFoundError, match="steps"):
        load_weights(other, f"{directory}@77")
    with pytest.raises(ResumeError, match="do not fit"):
        load_weights(build(width=2), f"{directory}@latest")


def test_state_that_cannot_be_stored_is_named_when_training_starts(tmp_path, caplog):
    """With `"require"` it is an error before the first step; with `"warn"` it is said."""
    with pytest.raises(UnstorableError, match=r"Remembers.*anything"):
        fit(Checkpointer(tmp_path / "a", exact="require"), Remembers(iter([])))
    with caplog.at_level("INFO"):
        fit(Checkpointer(tmp_path / "b"), Remembers(iter([])))
    assert "callbacks.Remembers[0].anything" in caplog.text


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (lambda: endless(), {"validation data (generator)"}),
        (lambda: from_generator(), {"validation data (from_generator)"}),
        (lambda: (X, Y), set()),
    ],
)
def test_validation_data_that_go_on_elsewhere_are_named(tmp_path, data, named):
    """A generator has no beginning to go back to, and its place can't be known: Keras draws ahead."""
    callback = Checkpointer(tmp_path / "run", exact="require")
    options = {"validation_data": data(), "validation_steps": 2, "validation_split": 0.0}
    with pytest.raises(InexactError, match=re.escape(min(named))) if named else contextlib.nullcontext():
        fit(callback, **options)


def endless():
    while True:
        yield X[:4], Y[:4]


def from_generator():
    return tf.data.Dataset.from_generator(endless, output_signature=(tf.TensorSpec((4, 3)), tf.TensorSpec((4, 1))))


def test_a_model_that_only_its_first_step_builds_is_named(tmp_path):
    """An eager step can't be traced, and without a `call` there is no other way to learn what it builds."""
    with pytest.raises(InexactError, match="no call"):
        fit(Checkpointer(tmp_path / "run", exact="require"), model=uncallable(run_eagerly=True))
    fit(Checkpointer(tmp_path / "other", exact="require"), model=uncallable(run_eagerly=False), validation_split=0)


def uncallable(**options) -> keras.Model:
    class Uncallable(keras.Model):
        def __init__(self):
            super().__init__()
            self.layer = keras.layers.Dense(1)

        def train_step(self, data):
            x, y = data
            with tf.GradientTape() as tape:
                loss = keras.ops.mean((self.layer(x) - y) ** 2)
            variables = self.layer.trainable_variables
            self.optimizer.apply(tape.gradient(loss, variables), variables)
            return {"loss": loss}

    model = Uncallable()
    model.compile(keras.optimizers.Adam(0.1), **options)
    return model


def test_manual_snapshot(tmp_path):
    """`save()` from any hook is honoured at the next boundary and gives the snapshot."""
    callback = Checkpointer(tmp_path / "run", save=on_end(), keep=keep_all())

    class Asks(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 1 and not hasattr(self, "wanted"):
                self.wanted = callback.save("look here")

    asks = Asks()
    fit(callback, asks)
    snapshot = asks.wanted.result(timeout=10)
    assert (snapshot.step, snapshot.note) == (2, "look here")


def test_files_are_named_as_the_variables(trained):
    """`model.safetensors` holds the weights under Keras' own paths."""
    directory, model, _ = trained
    names = set(Run(directory).latest.weights())
    assert {variable.path for variable in model.trainable_variables} <= names


SIGTERM_JOB = """
import os, signal, sys
import keras
from ckpt_callbacks import on_signal
from ckpt_callbacks.keras import Checkpointer
from tests.keras.test_callback import fit

class Preempted(keras.callbacks.Callback):
    def on_test_begin(self, logs=None):
        os.kill(os.getpid(), signal.SIGTERM)

if sys.argv[2] == "own handler":
    signal.signal(signal.SIGTERM, lambda *_: print("requeued"))
fit(Checkpointer(sys.argv[1], save=on_signal()), Preempted())
print("trained on")
"""


def preempted(directory, handler: str) -> subprocess.CompletedProcess[str]:
    """A run that is asked to leave in the middle of its first validation."""
    command = [sys.executable, "-c", SIGTERM_JOB, str(directory), handler]
    return subprocess.run(command, capture_output=True, text=True)


def test_sigterm_saves_before_leaving(tmp_path):
    """Asked to leave in the middle of a validation, a run saves at the next boundary and goes, by the usual code."""
    done = preempted(tmp_path / "run", "none")
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    latest = Run(tmp_path / "run").latest
    assert (latest.step, latest.reasons) == (3, ("signal SIGTERM",))
    callback = Checkpointer(tmp_path / "run")
    model, _ = fit(callback)
    assert callback.resumed.step == 3
    assert same(model, fit()[0])


def test_sigterm_still_reaches_the_programs_own_handler(tmp_path):
    """After the snapshot the program's handler decides, as it would have without us."""
    done = preempted(tmp_path / "run", "own handler")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[-4:] == ["requeued", "requeued", "trained on", ""]  # one for each validation
    assert Run(tmp_path / "run").latest.reasons == ("signal SIGTERM",)


def test_a_large_value_is_lent_to_its_variable():
    """Until the variable changes: then it has memory of its own, and the value is as it was."""
    value = fresh(8 << 20).view(np.float32).reshape(1024, 2048)
    value[:] = 3
    variable = keras.Variable(np.zeros(value.shape, "float32"))
    private.variables.assign(variable, value)
    assert np.shares_memory(private.variables.read(variable), value)
    variable.assign_add(keras.ops.ones(value.shape))
    assert (float(variable.value[5, 5]), value[5, 5]) == (4, 3)


def test_ctrl_c_saves_before_it_is_obeyed(tmp_path):
    """As KeyboardInterrupt, which a notebook survives, at a boundary; a handler of the program's own has its way."""

    class Interrupts(keras.callbacks.Callback):
        def on_test_begin(self, logs=None):
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background, a shell has it ignored
    try:
        with pytest.raises(KeyboardInterrupt):
            fit(Checkpointer(tmp_path / "run"), Interrupts())
        gc.collect()
        assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert (Run(tmp_path / "run").latest.step, owner_of(tmp_path / "run")) == (3, None)
    model, _ = fit(Checkpointer(tmp_path / "run"))
    assert same(model, fit()[0])


def test_the_best_weights_are_back_when_training_ends(tmp_path):
    """With `restore_best=True`, also if Keras' EarlyStopping ended it; the last snapshot keeps the last weights."""

    class Falls(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs):
            logs["score"] = float(-epoch)

    def stopping():
        return [Falls(), keras.callbacks.EarlyStopping("score", mode="max", patience=1)]

    options = {"monitor": "score", "mode": "max", "restore_best": True}
    model, _ = fit(*stopping(), Checkpointer(tmp_path / "run", **options), epochs=9)
    run = Run(tmp_path / "run")
    assert (run.best().step, run.latest.step) == (3, 6)

    def holds(snapshot) -> bool:
        (kernel,) = [value for name, value in snapshot.weights().items() if name.endswith("kernel")]
        return np.array_equal(model.layers[-1].kernel.numpy(), kernel)

    assert holds(run.best())
    assert not holds(run.latest)
    model, _ = fit(*stopping(), Checkpointer(tmp_path / "run", **options), epochs=9)
    assert holds(run.best())


def test_a_misspelled_monitor_is_told_in_the_first_epoch(tmp_path, caplog):
    """With the name that was meant; if nothing else would save, training ends there."""
    fit(Checkpointer(tmp_path / "run", monitor="val_lss", mode="min"))
    assert "Did you mean 'val_loss'" in caplog.text
    with pytest.raises(ConfigurationError, match="no snapshot would ever be taken"):
        fit(Checkpointer(tmp_path / "other", monitor="val_lss", mode="min", save=on_best()))


@pytest.mark.parametrize("name", ["loss", "val_loss"])
def test_a_loss_that_is_no_number_is_unhealthy_though_another_metric_is_monitored(tmp_path, name):
    """In the logs of an epoch, whoever wrote it there."""

    def spoil(epoch, logs):
        logs |= {"val_acc": epoch / 10, name: float("nan") if epoch else 0.5}

    callback = Checkpointer(tmp_path / "run", monitor="val_acc", save=every_epochs(1) | on_best(), keep=keep_all())
    fit(keras.callbacks.LambdaCallback(on_epoch_end=spoil), callback)
    assert [one.manifest.unhealthy for one in callback.snapshots()] == [None, f"{name} is nan"]
    assert callback.best.epoch == 1


def test_who_saves_on_an_exception_only_is_told_when_training_starts(tmp_path, caplog):
    """Here it never fires; and when training has ended, that nothing did."""
    fit(Checkpointer(tmp_path / "run", save=on_exception()))
    assert "nothing that save=on_exception() waits for happens" in caplog.text
    assert "no snapshot: no trigger fired" in caplog.text


def test_an_exception_leaves_nothing_behind(tmp_path):
    """Keras tells callbacks nothing of an exception; the run is free and signals go where they went all the same."""
    handler = signal.getsignal(signal.SIGTERM)
    with contextlib.suppress(RuntimeError):
        fit(Checkpointer(tmp_path / "run"), StopAt(4))
    gc.collect()
    assert owner_of(tmp_path / "run") is None
    assert signal.getsignal(signal.SIGTERM) == handler


@pytest.mark.parametrize(
    ("hook", "at", "held"),
    [
        ("on_train_batch_begin", 5, 5),
        ("on_train_batch_end", 5, 4),
        ("on_test_batch_begin", 6, 5),
        ("on_epoch_end", 6, 5),
    ],
)
def test_an_exception_saves_the_state_that_is_held(tmp_path, monkeypatch, caplog, hook, at, held):
    """That of the boundary before, once fit is left: Keras itself tells callbacks nothing."""
    monkeypatch.setattr(reserve, "AT_ONCE", math.inf)
    caplog.set_level("INFO")

    def fails(*_, **__):
        if steps() == at:
            raise RuntimeError("the user's own error")

    failing = keras.callbacks.LambdaCallback(**{hook: fails})
    steps = lambda: int(failing.model.optimizer.iterations)  # noqa: E731
    with contextlib.suppress(RuntimeError):
        fit(Checkpointer(tmp_path / "run"), failing)
    latest = Run(tmp_path / "run").latest
    assert (latest.step, latest.reasons) == (held, ("exception",))
    assert f"its state after step {held}, which was held in memory, is saved" in caplog.text
    callback = Checkpointer(tmp_path / "run")
    assert same(fit(callback)[0], fit()[0])
    assert callback.resumed.step == held


@pytest.mark.parametrize("waits", [False, True])
def test_the_next_fit_goes_on_from_what_an_exception_left(tmp_path, monkeypatch, waits):
    """Also while the traceback is alive, and with another callback: nothing comes late, and into what goes on."""
    monkeypatch.setattr(reserve, "AT_ONCE", math.inf)
    options = {"save": on_end() | on_exception(), "keep": keep_last(1)}
    first = Checkpointer(tmp_path / "run", **options)
    with pytest.raises(RuntimeError) as kept:
        fit(first, StopAt(5))
    if waits:
        first.wait()
        assert first.latest.step == 4
    callback = Checkpointer(tmp_path / "run", **options)
    model, _ = fit(callback)
    assert callback.resumed.step == 4
    assert same(model, fit()[0])
    time.sleep(2 * INTERVAL)
    assert [snapshot.step for snapshot in callback.snapshots()] == [6]
    assert kept.value.__traceback__ is not None


def test_a_signal_in_a_step_that_fails_comes_once_more(tmp_path):
    """When fit is gone: to the handler that was there before."""
    came = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))

    class Preempted(StopAt):
        def on_train_batch_begin(self, batch, logs=None):
            if int(self.model.optimizer.iterations) == 4:
                signal.raise_signal(signal.SIGTERM)

    try:
        with contextlib.suppress(RuntimeError):
            fit(Checkpointer(tmp_path / "run"), Preempted(5))
        assert came == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


@pytest.mark.parametrize("hook", ["on_train_batch_end", "on_test_batch_end", "on_epoch_end"])
def test_an_exception_leaves_no_handler(tmp_path, hook):
    """As soon as the exception is dealt with, without the garbage collector; nor does the next fit find layers."""
    before = [signal.getsignal(number) for number in HANDLED]
    for name in ("a", "b"):
        with contextlib.suppress(RuntimeError):
            fit(Checkpointer(tmp_path / name), raises(hook, RuntimeError))
        assert [signal.getsignal(number) for number in HANDLED] == before
    fit(Checkpointer(tmp_path / "b"))
    assert [signal.getsignal(number) for number in HANDLED] == before


@pytest.mark.parametrize("kind", [RuntimeError, SystemExit])
def test_a_traceback_that_is_kept_keeps_no_handler(tmp_path, kind):
    """As a notebook keeps it, with fit's local variables."""
    before = [signal.getsignal(number) for number in HANDLED]
    with pytest.raises(kind) as kept:
        fit(Checkpointer(tmp_path / "run"), raises("on_train_batch_end", kind))
    patience = time.monotonic() + 20
    while [signal.getsignal(number) for number in HANDLED] != before:
        assert time.monotonic() < patience, "the handlers of a fit that is gone are still there"
        time.sleep(0.01)
    assert kept.value.__traceback__ is not None


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGUSR1", 138)])
def test_a_fit_that_left_by_a_signal_leaves_no_handler(tmp_path, name, code):
    """The exit may be caught, and kept."""
    before = [signal.getsignal(number) for number in HANDLED]
    sends = keras.callbacks.LambdaCallback(on_test_begin=lambda *_: os.kill(os.getpid(), signal.Signals[name]))
    with pytest.raises(SystemExit) as left:
        fit(Checkpointer(tmp_path / "run"), sends)
    assert [signal.getsignal(number) for number in HANDLED] == before
    assert left.value.code == code


def test_a_refused_start_leaves_nothing_behind(tmp_path, trained):
    """A model that does not fit, or state that can't be stored, ends fit before it began: as if it had not been."""
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(UnstorableError):
        fit(Checkpointer(tmp_path / "run", exact="require"), Remembers(iter([])))
    assert owner_of(tmp_path / "run") is None
    assert signal.getsignal(signal.SIGTERM) == handler


def test_a_later_fit_without_the_callback_is_not_affected(trained):
    """A complete run that was run again leaves the model as it would be: its next fit begins at epoch 0."""
    directory, _, _ = trained
    model, _ = fit(Checkpointer(directory, keep=keep_all()))
    _, history = fit(model=model)
    assert history.epoch == [0, 1]


def test_schedules_that_stand_before_us_see_the_restored_state(tmp_path):
    """LearningRateScheduler may stand before or after us: a finished run that trains on has the whole run's rates."""

    def halve() -> keras.callbacks.Callback:
        return keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)

    fit(halve(), Checkpointer(tmp_path / "run"))
    model, history = fit(halve(), Checkpointer(tmp_path / "run"), epochs=4)
    whole, reference = fit(halve(), epochs=4)
    assert history.history == reference.history
    assert same(model, whole)


class Measures(keras.callbacks.Callback):
    """A user's callback with a metric object and a seed generator, from which the weights come to depend."""

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.seeds = keras.metrics.Mean(), keras.random.SeedGenerator(5)

    def on_train_batch_end(self, batch, logs=None):
        self.mean.update_state(batch + float(keras.random.uniform((), seed=self.seeds)))
        self.model.weights[0].assign_add(self.model.weights[0] * float(self.mean.result()) * 0.01)


def test_variables_that_callbacks_hold_are_state(tmp_path):
    """A metric object and a seed generator in a callback go on where they were."""
    with contextlib.suppress(RuntimeError):
        fit(Measures(), Checkpointer(tmp_path / "run", save=every_steps(1)), StopAt(4))
    callback = Checkpointer(tmp_path / "run", save=every_steps(1))
    model, _ = fit(Measures(), callback)
    whole, _ = fit(Measures())
    assert callback.resumed is not None
    assert same(model, whole)


def test_handlers_are_put_back(tmp_path):
    """After fit the process has the signal handler that it had before."""
    before = signal.getsignal(signal.SIGTERM)
    fit(Checkpointer(tmp_path / "run"))
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_frozen_layer_is_written_once(tmp_path):
    """From the first snapshot on it lies in a file of its own, which all snapshots share."""
    body = keras.layers.Dense(600, trainable=False)
    model = keras.Sequential([keras.Input((3,)), body, keras.layers.Dense(600, trainable=False), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    fit(Checkpointer(tmp_path, keep=keep_all()), model=model)
    snapshots = Run(tmp_path).snapshots()
    assert len(snapshots) >= 2
    files = {(one.path / "model-00002-of-00002.safetensors").stat().st_ino for one in snapshots}
    assert len(files) == 1
    again = build_like(model)
    load_weights(again, snapshots[-1].path)
    assert same(again, model)


def build_like(model: keras.Model) -> keras.Model:
    """The same layers, with other weights."""
    return keras.models.clone_model(model)


@pytest.mark.parametrize(("rate", "told"), [(0.0, 1), (0.1, 0)])
def test_trained_weights_that_stand_still_are_told(tmp_path, caplog, rate, told):
    """Though running statistics and the seeds of layers move."""
    layers = [keras.layers.BatchNormalization(), keras.layers.Dropout(0.2), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((3,)), *layers])
    model.compile(keras.optimizers.SGD(rate), "mse")
    fit(Checkpointer(tmp_path / "run"), model=model)
    assert layers[0].moving_mean.numpy().any()
    assert caplog.text.count("steps went on from 3 to 6, but no weight has changed") == told


class Breaks(keras.callbacks.Callback):
    """Raises in one of its hooks."""

    def __init__(self, hook: str) -> None:
        super().__init__()
        setattr(self, hook, self._break)

    def _break(self, *args, **logs):
        raise RuntimeError("the user's own error")


@pytest.fixture(autouse=True)
def earlier():
    """The threads that there are before a test: some tests of others end a run without its leave."""
    _earlier.clear()
    _earlier.update(threading.enumerate())


_earlier: set[threading.Thread] = set()


def ended(directory) -> bool:
    """Whether nothing of ours runs any more, soon: the run can be used by others."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        threads = {*threading.enumerate()} - _earlier
        ours = [one for one in threads if one.name.startswith("ckpt-") or one.name == "fit-watch"]
        if not ours and owner_of(directory) is None:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("hook", ["on_train_batch_end", "on_test_batch_end", "on_epoch_end"])
def test_a_fit_that_raised_lets_go_though_its_traceback_is_kept(tmp_path, hook):
    """As a notebook does: the threads end, and the run is free."""
    with pytest.raises(RuntimeError, match="the user's own error") as kept:
        fit(Checkpointer(tmp_path / "run", save=every_steps(1)), Breaks(hook))
    assert ended(tmp_path / "run")
    assert kept.traceback


def test_a_traceback_that_goes_later_does_not_end_the_next_fit(tmp_path):
    """The same callback, once more, while the error of the first time is still looked at."""
    callback, kept = Checkpointer(tmp_path / "run", save=every_steps(1), keep=keep_all()), []
    try:
        fit(callback, StopAt(2))
    except RuntimeError as error:
        kept.append(error)

    def forget(epoch, logs):
        kept.clear()
        gc.collect()
        held.append(owner_of(tmp_path / "run"))

    held: list[object] = []
    fit(callback, keras.callbacks.LambdaCallback(on_epoch_end=forget))
    assert all(held)
    assert [one.step for one in Run(tmp_path / "run").snapshots()][-1] == 6
    assert ended(tmp_path / "run")
