"""The same through real trainers: a disk that is full for a while under Lightning and under Keras."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ckpt_callbacks import Run, StoreError, every_batches, keep_all
from ckpt_callbacks.store import owner_of
from tests.faults.harness import Call, failing
from tests.golden.models import train_keras, train_lightning

OPTIONS: dict[str, Any] = {"save": every_batches(2), "keep": keep_all()}
TRAINERS = [train_lightning, train_keras]


def full(call: Call) -> bool:
    """The disk is full while the snapshots of step 4 are written, and only then."""
    return call.name in ("create", "write") and "000000004-" in call.path


@pytest.mark.parametrize("train", TRAINERS)
def test_training_goes_on_with_the_same_bits(train: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With `on_error="warn"`: one snapshot is missing and told, and training ends as if nothing had been."""
    _, alone = train(tmp_path / "alone", 2, **OPTIONS)
    with failing(tmp_path / "run", errno.ENOSPC, full):
        _, trained = train(tmp_path / "run", 2, on_error="warn", **OPTIONS)
    assert bits(trained) == bits(alone)
    steps = {snapshot.step for snapshot in Run(tmp_path / "run").snapshots()}
    assert {snapshot.step for snapshot in Run(tmp_path / "alone").snapshots()} - steps == {4}
    assert Run(tmp_path / "run").verify()
    assert caplog.text.count("a save failed, training goes on") == 1
    assert "free some or keep fewer snapshots" in caplog.text


@pytest.mark.parametrize("train", TRAINERS)
def test_training_stops_and_carries_on(train: Any, tmp_path: Path) -> None:
    """With `on_error="raise"` the error leaves `fit`, the run is let go of, and the same command ends with the bits of
    the undisturbed run."""
    _, alone = train(tmp_path / "alone", 2, **OPTIONS)
    with (
        failing(tmp_path / "run", errno.ENOSPC, full),
        pytest.raises(StoreError, match=r"step 4 could not be written.*No space left.*Check free space"),
    ):
        train(tmp_path / "run", 2, background=False, **OPTIONS)
    assert owner_of(tmp_path / "run") is None
    assert Run(tmp_path / "run").latest.step == 2  # type: ignore[union-attr]
    callback, trained = train(tmp_path / "run", 2, **OPTIONS)
    assert callback.resumed is not None
    assert bits(trained) == bits(alone)


@pytest.mark.parametrize("train", TRAINERS)
def test_what_can_not_be_read_now_is_no_reason_to_start_afresh(train: Any, tmp_path: Path) -> None:
    """Without permission to read the newest snapshot training does not begin, and nothing is changed or held."""
    train(tmp_path / "run", 1, **OPTIONS)
    latest = Run(tmp_path / "run").latest.id  # type: ignore[union-attr]
    with (
        failing(tmp_path / "run", errno.EACCES, lambda call: call.name == "open" and latest in call.path),
        pytest.raises(StoreError, match=r"can't be read now: Permission denied.*owner and permissions.*resume="),
    ):
        train(tmp_path / "run", 2, **OPTIONS)
    assert owner_of(tmp_path / "run") is None
    callback, _ = train(tmp_path / "run", 2, **OPTIONS)
    assert callback.resumed.snapshot.id == latest


def bits(trained: Any) -> list[bytes]:
    """Every weight."""
    weights = trained.state_dict().values() if hasattr(trained, "state_dict") else trained.get_weights()
    return [np.asarray(value).tobytes() for value in weights]
