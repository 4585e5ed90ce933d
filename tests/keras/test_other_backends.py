"""The same promise on Keras' other backends: killed by SIGKILL and started again, a run ends with the same bytes.

A process can have one backend only, so a new one runs all jobs of a backend; `test_exact_resume` is broader.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.keras.test_exact_resume import result, resumed, train
from tests.processes import KILLED

BACKENDS = ("torch", "jax")

# Where backends go ways of their own: dropout draws from elsewhere, data are fetched earlier than on TensorFlow.
NAMES = (
    "a callback that changes an attribute of the model",
    "arrays, shuffle, dropout",
    "steps_per_epoch over one iterator",
    "mixed float16, loss scaling",
    "tf.data, shuffled without a seed",
    "PyDataset that shuffles itself and draws",
    "tf.data, shuffled, then split",
    "PyDataset for validation, draws",
    "torch loader",
)


def exact(directory: Path, name: str) -> str:
    """Kill a job, resume it, and tell what is wrong with its end: nothing, if it is exact."""
    directory.mkdir()
    train(directory, name, "reference", checkpoint=False)
    if train(directory, name, "killed", ("on_train_batch_end", 10), background=False) != KILLED:
        return "not killed"
    train(directory, name, "resumed")
    if not resumed(directory, "resumed"):
        return "not resumed"
    found, expected = result(directory, "resumed"), result(directory, "reference")
    return ", ".join(key for key in expected if found.get(key) != expected[key])


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """Backend -> job -> what is wrong with its end. Each backend's jobs are run when first asked for."""
    cache: dict[str, dict[str, str]] = {}

    def of(backend: str) -> dict[str, str]:
        if backend not in cache:
            command = [sys.executable, "-m", __name__, str(tmp_path_factory.mktemp(backend)), *NAMES]
            ours = {"KERAS_BACKEND": backend, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
            done = subprocess.run(command, env={**os.environ, **ours}, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr[-4000:]
            cache[backend] = json.loads(done.stdout.splitlines()[-1])
        return cache[backend]

    return of


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_other_backend(outcome, backend, name):
    """Every row is exact: weights, seeds, optimizer, the whole History."""
    assert outcome(backend)[name] == ""


if __name__ == "__main__":
    where, names = Path(sys.argv[1]), sys.argv[2:]
    sys.stdout.write(json.dumps({name: exact(where / str(number), name) for number, name in enumerate(names)}))
