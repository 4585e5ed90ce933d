"""Losses on their way to the trace."""

from __future__ import annotations

import pytest
import torch

from ckpt_callbacks._lightning import losses as losses_module
from ckpt_callbacks._lightning.losses import Losses, loss_of
from ckpt_callbacks.store import Step, fingerprint

MODULE = torch.nn.Linear(2, 1)


@pytest.mark.parametrize(
    "outputs",
    [torch.tensor(0.25), {"loss": torch.tensor(0.25), "more": 1}, {"loss": torch.tensor([0.25], requires_grad=True)}],
)
def test_the_loss_among_outputs(outputs):
    """A training step may return the loss, or a dictionary that holds it."""
    assert loss_of(outputs, MODULE).item() == 0.25


@pytest.mark.parametrize("outputs", [None, {}, {"loss": None}, torch.zeros(3)])
def test_without_a_loss_a_weight_tells(outputs):
    """Manual optimization may return nothing; the weight is that of now, whatever becomes of it later."""
    module = torch.nn.Linear(2, 1)
    value = loss_of(outputs, module)
    torch.nn.init.zeros_(module.bias)
    assert value.item() != 0


def test_nothing_to_tell():
    """A module without trained weights and without a loss leaves no trace, and no error."""
    assert loss_of(None, torch.nn.Identity()) is None
    steps: list[Step] = []
    Losses([lambda *step: steps.append(Step(*step))]).note(1, 1, None)
    assert steps == []


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_bits(dtype):
    """Every dtype keeps its bits."""
    steps: list[Step] = []
    losses = Losses([lambda *step: steps.append(Step(*step))])
    value = torch.tensor(1 / 3, dtype=dtype)
    losses.note(7, 5, value)
    losses.flush()
    assert steps == [Step(7, 5, value.item(), fingerprint(value.item()))]


class _Arrival:
    """Stands in for a device's event: the copy arrives when the test says so."""

    arrived = False

    def __init__(self, device: torch.device) -> None:
        self.synchronized = False

    def record(self) -> None:
        pass

    def query(self) -> bool:
        return type(self).arrived

    def synchronize(self) -> None:
        self.synchronized = True


def test_losses_on_an_accelerator_travel_in_groups(monkeypatch):
    """Nothing waits for a device: losses are read when their group has arrived, in order; at the end all are."""
    monkeypatch.setattr(losses_module, "_ASYNCHRONOUS", ("cpu",))
    monkeypatch.setattr(torch, "Event", _Arrival)
    steps: list[Step] = []
    losses = Losses([lambda *step: steps.append(Step(*step))])
    loss = torch.zeros(())
    for batch in range(1, 2 * losses_module.GROUP + 3):
        losses.note(batch, batch, loss.fill_(batch))  # the same memory each time, as in a CUDA graph
    assert steps == []
    monkeypatch.setattr(_Arrival, "arrived", True)
    losses.note(35, 35, loss.fill_(35))
    assert [step.loss for step in steps] == list(range(1, 33))
    losses.flush()
    assert [step.loss for step in steps] == list(range(1, 36))
