"""What the store's tests share: a draft manifest, a snapshot's files, and a store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from ckpt_callbacks.engine.moment import Progress
from ckpt_callbacks.store import LocalStore, Manifest


@pytest.fixture
def draft() -> Callable[..., Manifest]:
    """Makes the manifest of a snapshot that is yet to be committed, by its step."""

    def make(step: int = 10, **known: Any) -> Manifest:
        known.setdefault("metrics", {"val_loss": 1 / (1 + step)})
        return Manifest.draft(progress=Progress(step=step), reasons=("every_steps(10)",), **known)

    return make


@pytest.fixture
def files() -> Callable[..., dict[str, list[bytes]]]:
    """Makes the files of a snapshot, different for each seed: name -> the file's bytes in pieces."""

    def make(seed: int = 0) -> dict[str, list[bytes]]:
        weights = save({"layer.weight": np.arange(6, dtype=np.float32) + seed})
        other = save({"moment": np.arange(6, dtype=np.float64) - seed})
        return {
            "model.safetensors": [weights[:9], b"", weights[9:]],
            "state.safetensors": [other],
            "state.json": [b'{"seed": %d}' % seed],
        }

    return make


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """An empty store."""
    return LocalStore(tmp_path / "run")
