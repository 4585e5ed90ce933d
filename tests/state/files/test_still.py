"""Whether trained weights changed since an earlier snapshot, whatever else did."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ckpt_callbacks.state.files import still
from ckpt_callbacks.state.files.packing import Packer, Staged
from ckpt_callbacks.state.memory.arena import Arena


def staged(packer: Packer | None = None, **changed: torch.Tensor) -> Staged:
    weights = {"w": torch.ones(3 * still.PIECE // 4 + 5), "running_mean": torch.zeros(3), **changed}
    return (packer or Packer()).pack(weights, None).stage(Arena())


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """The directory of a snapshot."""
    for name, chunks in staged().files().items():
        (tmp_path / name).write_bytes(b"".join(chunks))
    return tmp_path


@pytest.mark.parametrize("place", [0, still.PIECE // 4, -1])
def test_one_number_that_moved_tells(earlier: Path, place: int) -> None:
    """Wherever it stands."""
    assert staged().same_as(earlier, {"w"})
    moved = torch.ones(3 * still.PIECE // 4 + 5)
    moved[place] += 1e-7
    assert not staged(w=moved).same_as(earlier, {"w"})


def test_what_is_not_trained_tells_nothing(earlier: Path) -> None:
    """Running statistics move with every step; where nothing is known to be trained, everything counts."""
    moved = staged(running_mean=torch.ones(3))
    assert moved.same_as(earlier, {"w"})
    assert not moved.same_as(earlier, set())
    assert not moved.same_as(earlier, {"w", "running_mean"})


def test_another_layout_counts_as_moved(earlier: Path) -> None:
    """A tensor that is new, or of another shape."""
    assert not staged(more=torch.ones(1)).same_as(earlier, {"w"})
    assert not staged(running_mean=torch.zeros(4)).same_as(earlier, {"w"})


def test_an_earlier_one_that_is_gone_is_an_error(tmp_path: Path) -> None:
    """The caller knows what that means."""
    with pytest.raises(FileNotFoundError):
        staged().same_as(tmp_path, {"w"})
