"""The same promise on Keras' other backends: killed by SIGKILL and started again, a run ends with the same bytes.

A process can have one backend only, so these are started anew, which takes seconds; `test_exact_resume` is broader.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.keras.test_exact_resume import result, resumed
from tests.processes import KILLED

JOB = """
import sys
from tests.jobs.keras_jobs import train
name, directory, result, kill = sys.argv[1:]
train(name, directory, result, ("on_train_batch_end", int(kill)) if kill != "0" else None)
"""


def train(backend: str, tmp_path: Path, name: str, result: str, kill: int = 0) -> int:
    command = [sys.executable, "-c", JOB, name, str(tmp_path / result / "run"), str(tmp_path / result), str(kill)]
    done = subprocess.run(command, env={**os.environ, "KERAS_BACKEND": backend}, capture_output=True, text=True)
    assert done.returncode in (0, KILLED), done.stderr[-4000:]
    return done.returncode


@pytest.mark.parametrize("backend", ["torch", "jax"])
@pytest.mark.parametrize("name", ["arrays, shuffle, dropout", "steps_per_epoch over one iterator"])
def test_other_backend(tmp_path, backend, name):
    """Dropout draws from elsewhere and data is fetched earlier than on TensorFlow; the bytes are equal all the same."""
    assert train(backend, tmp_path, name, "resumed", kill=10) == KILLED
    assert train(backend, tmp_path, name, "resumed") == 0
    assert train(backend, tmp_path, name, "reference") == 0
    assert resumed(tmp_path, "resumed")
    assert result(tmp_path, "resumed") == result(tmp_path, "reference")
