"""On torch, what is copied while the next batch is trained on is the state of the boundary, byte for byte."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

WIDTH = 300  # a kernel of 360 kB: worth being copied later

JOBS = {  # -> what came of the copies that were made beside training
    "plain": [True] * 3,
    "accumulates": [True] * 3,
    "steps by itself": [True] * 3,
    "clamps": [False],  # a copy that is torn, and taken again; the others are made at once
    "clamps behind torch": [],
    "a callback that does": [],
    "without the fence": [False],
}


def run(job: str, directory: Path) -> dict[int, dict[str, bytes]]:
    """Train with a snapshot after every second step; give the snapshots' tensors by step."""
    import keras
    import numpy as np
    import torch
    from safetensors import safe_open

    from ckpt_callbacks import every_steps, keep_all
    from ckpt_callbacks.keras import Checkpointer

    class Clamps(keras.Model):
        def train_step(self, data):
            with torch.no_grad():
                weight = self.layers[1].kernel.value
                (weight.data if job == "clamps behind torch" else weight).clamp_(-0.04, 0.04)
            return super().train_step(data)

    class ClampsCounted(keras.Model):
        def train_step(self, data):
            with torch.no_grad():
                self.layers[1].kernel.value.clamp_(-0.04, 0.04)
            return super().train_step(data)

    class Steps(keras.Model):
        def train_step(self, data):
            x, y = data
            self.zero_grad()
            loss = self.compute_loss(x, y, self(x, training=True))
            loss.backward()
            with torch.no_grad():
                self.optimizer.apply([one.value.grad for one in self.trainable_weights], self.trainable_weights)
            return {"loss": loss}

    class Meddles(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            self.model.layers[1].kernel.value.data.clamp_(-0.04, 0.04)

    keras.backend.clear_session()
    keras.utils.set_random_seed(3)
    kinds = {"clamps": ClampsCounted, "clamps behind torch": Clamps, "steps by itself": Steps}
    given = keras.Input((WIDTH,))
    hidden = keras.layers.Dense(WIDTH, activation="relu")(given)
    model = kinds.get(job, keras.Model)(given, keras.layers.Dense(WIDTH)(hidden))
    steps = 2 if job == "accumulates" else None
    model.compile(keras.optimizers.Adam(0.01, gradient_accumulation_steps=steps), "mse")
    callback = Checkpointer(directory, save=every_steps(1 if steps else 2), keep=keep_all())
    rows = np.random.default_rng(1).standard_normal((32, WIDTH), np.float32)
    callbacks = [callback, *([Meddles()] if job == "a callback that does" else [])]
    model.fit(rows, rows, batch_size=4, epochs=1, verbose=0, callbacks=callbacks)
    assert "apply" not in vars(model.optimizer)
    found: dict[int, dict[str, bytes]] = {}
    for snapshot in callback.snapshots():
        for name in ("model.safetensors", "state.safetensors"):
            with safe_open(snapshot.path / name, framework="np") as file:
                found.setdefault(snapshot.step, {}).update(
                    {f"{name} {key}": file.get_tensor(key).tobytes() for key in file.keys() if "random" not in key}  # noqa: SIM118
                )
    return found


def both(job: str, directory: Path) -> tuple[list[bool], list[int]]:
    """What came of the copies beside training, and the steps of which a copy made at once differs."""
    from ckpt_callbacks.keras import private
    from ckpt_callbacks.saving.overlap import Overlap
    from ckpt_callbacks.state.memory.copying import Copier, Copying

    outcomes: list[bool] = []
    conclude, begin, before = Copying.conclude, Copier.begin, private.models.before_applying

    def late(self: Copying) -> bool:
        if self.unfinished:
            self.work()
            outcomes.append(conclude(self))
        return conclude(self)

    Copying.conclude, Copier.begin, Overlap.pays = late, lambda self, work: None, lambda self: True
    if job == "without the fence":
        private.models.before_applying = lambda optimizers, fence: lambda: None
    ours = run(job, directory / "late")
    private.models.before_applying, Copying.conclude, Copier.begin = before, conclude, begin
    Overlap.pays = lambda self: False
    other = run(job, directory / "at once")
    return outcomes, [step for step in ours if step in other and ours[step] != other[step]]


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict[str, tuple[list[bool], list[int]]]:
    """All jobs, run in one process on torch."""
    command = [sys.executable, "-m", __name__, str(tmp_path_factory.mktemp("overlap"))]
    ours = {"KERAS_BACKEND": "torch", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env={**os.environ, **ours}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("job", JOBS)
def test_the_snapshots_are_those_of_the_boundary(found, job):
    """Beside training wherever it can be told that nothing changes; where it changes all the same, it is found out."""
    outcomes, different = found[job]
    assert outcomes == JOBS[job]
    assert different == []


if __name__ == "__main__":
    where = Path(sys.argv[1])
    sys.stdout.write(json.dumps({job: both(job, where / str(number)) for number, job in enumerate(JOBS)}))
