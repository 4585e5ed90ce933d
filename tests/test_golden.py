"""Snapshots that earlier versions wrote: each must load for ever, and be carried on from."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from ckpt_callbacks import Run
from ckpt_callbacks.checkpointer import BaseCheckpointer
from tests.golden.models import train_keras, train_lightning, train_plain

VERSIONS = sorted(path for path in (Path(__file__).parent / "golden").iterdir() if path.name.startswith("format"))


@pytest.fixture(params=VERSIONS, ids=lambda path: path.name)
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy, since whoever resumes writes to it."""
    return Path(shutil.copytree(request.param, tmp_path / "golden"))


def test_there_are_some() -> None:
    """An empty folder would pass everything below."""
    assert [path.name for path in VERSIONS] == ["format-1"]


def test_every_file_is_as_it_was_written(golden: Path) -> None:
    """And every one is listed."""
    for kind in ("plain", "lightning", "keras"):
        run = Run(golden / kind)
        assert run.verify()
        assert run.latest.content == "full"


def test_every_kind_of_value_comes_back(golden: Path, tmp_path: Path) -> None:
    """As the code that wrote them still has them."""
    weights, rest = train_plain(tmp_path / "again")
    checkpointer = BaseCheckpointer(golden / "plain", resume="must")
    restored = checkpointer.begin({})
    checkpointer.end()
    assert restored.rest.keys() == rest.keys()
    for name, value in {**rest, **weights}.items():
        found = restored.weights[name] if name in weights else restored.rest[name]
        assert type(found) is type(value), name
        if isinstance(value, np.ndarray):
            assert (found.dtype, found.tolist()) == (value.dtype, value.tolist()), name
        else:
            assert found == value, name


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["lightning", "keras"])
def test_training_goes_on_from_them(golden: Path, tmp_path: Path, kind: str) -> None:
    """Weights, optimizer and place are taken over: a third epoch follows the second."""
    train = {"lightning": train_lightning, "keras": train_keras}[kind]
    before = Run(golden / kind).latest
    callback, model = train(golden / kind, 3, resume="must")
    assert (callback.resumed.step, callback.resumed.epoch, callback.latest.step) == (6, 2, 9)
    assert set(callback.resumed.parts.values()) == {"exact"}
    assert [one.shape for one in before.weights().values()] == [
        one.shape for one in callback.latest.weights().values()
    ]  # Keras' names depend on what else the process has made
    values = [value.numpy() for value in (model.state_dict().values() if kind == "lightning" else model.weights)]
    assert all(np.isfinite(value).all() for value in values)
