"""Weights of a snapshot into a plain module: whole, in part, renamed; what doesn't fit is listed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ckpt_callbacks import ResumeError
from ckpt_callbacks.checkpointer import BaseCheckpointer
from ckpt_callbacks.engine import Event, Progress
from ckpt_callbacks.state.captured import Captured
from ckpt_callbacks.torch import load_weights


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))


@pytest.fixture(scope="module")
def run(model, tmp_path_factory):
    """A run with one snapshot of the model."""
    directory = tmp_path_factory.mktemp("run")
    one = BaseCheckpointer(directory)
    one.begin({})
    one.boundary(Progress(1), Event.FIT_END, {}, lambda: Captured(model.state_dict(), {}))
    one.end()
    return directory


def fresh() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))


def test_all(run, model):
    """Every weight and buffer arrives bit for bit."""
    other = fresh()
    report = load_weights(other, run)
    assert all(torch.equal(a, b) for a, b in zip(other.state_dict().values(), model.state_dict().values(), strict=True))
    assert set(report.loaded) == set(model.state_dict())


def test_in_part_and_renamed(run, model):
    """A backbone from a larger model: select by pattern, cut the prefix."""
    head = nn.Linear(3, 1)
    load_weights(head, run, include="2.*", rename={"2.": ""})
    assert torch.equal(head.weight, model[2].weight)


def test_what_does_not_fit_is_listed(run):
    """Shapes and names that differ are named on both sides, and nothing is copied."""
    other = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4))
    before = other[0].weight.clone()
    with pytest.raises(ResumeError, match=r"0\.weight: \[3, 2\] in the snapshot, \[4, 2\] in the model"):
        load_weights(other, run)
    assert torch.equal(other[0].weight, before)
    with pytest.raises(ResumeError, match=r"2\.bias: in the snapshot only"):
        load_weights(nn.Sequential(nn.Linear(2, 3)), run)


def test_not_strict(run, model):
    """What matches by name is loaded; the report tells the rest."""
    other = nn.Sequential(nn.Linear(2, 3))
    report = load_weights(other, run, strict=False)
    assert torch.equal(other[0].weight, model[0].weight)
    assert "2.bias" in report.unexpected
