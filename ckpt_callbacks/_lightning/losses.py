"""Losses on their way to the trace, without making the device wait.

On a CPU a loss is a number at once. On an accelerator it will be one later: losses are gathered on the device, copied
to the host a group at a time, and read when the copy has arrived. A kill may cost the last groups their record.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from ckpt_callbacks.store import fingerprint

__all__ = ["Losses", "loss_of"]

GROUP = 16
"""Losses that travel together; each copy costs some tens of microseconds."""

_ASYNCHRONOUS = ("cuda", "xpu")


def loss_of(outputs: Any, module: torch.nn.Module) -> torch.Tensor | None:
    """The loss among what `on_train_batch_end` gets.

    Manual optimization may return none: then the last weight that is trained tells as much, after the step.
    """
    loss = outputs["loss"] if type(outputs) is dict and "loss" in outputs else outputs
    if not isinstance(loss, torch.Tensor) and isinstance(loss, Mapping):  # in this order: nearly all are tensors
        loss = loss.get("loss")
    if isinstance(loss, torch.Tensor) and loss.numel() == 1:
        return loss
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad and parameter.numel()]
    return trained[-1].detach().reshape(-1)[-1].clone() if trained else None


class Losses:
    """Turns losses into steps of the trace.

    Args:
        tell: each gets every `Step`, by its parts, in order, as soon as its loss is known on the host.
    """

    def __init__(self, tell: Sequence[Callable[[int, int, float, int], None]]) -> None:
        self._tell = tell
        self._here: list[tuple[int, int, torch.Tensor]] = []
        self._travelling: deque[tuple[list[tuple[int, int]], torch.Tensor, torch.Event]] = deque()

    def note(self, batches: int, step: int, loss: torch.Tensor | None) -> None:
        """Take the loss of a batch; nothing waits for it."""
        if loss is None:
            return
        kind = loss.device.type
        if kind in _ASYNCHRONOUS:
            # A copy: a CUDA graph would write the next loss over this one.
            self._here.append((batches, step, loss.detach().clone()))
            if len(self._here) == GROUP:
                self._send()
            while self._travelling and self._travelling[0][2].query():
                self._receive()
        elif kind == "cpu":
            self._arrived(batches, step, loss.item())

    def flush(self) -> None:
        """Wait for every loss, at the end of a fit."""
        if self._here:
            self._send()
        while self._travelling:
            self._travelling[0][2].synchronize()
            self._receive()

    def _send(self) -> None:
        gathered = torch.stack([loss.reshape(()).double() for _, _, loss in self._here])
        host = torch.empty(len(self._here), dtype=torch.float64, pin_memory=gathered.device.type == "cuda")
        host.copy_(gathered, non_blocking=True)
        arrival = torch.Event(gathered.device)
        arrival.record()
        self._travelling.append(([(batches, step) for batches, step, _ in self._here], host, arrival))
        self._here = []

    def _receive(self) -> None:
        which, host, _ = self._travelling.popleft()
        for (batches, step), value in zip(which, host.tolist(), strict=True):
            self._arrived(batches, step, value)

    def _arrived(self, batches: int, step: int, value: float) -> None:
        bits = fingerprint(value)
        for tell in self._tell:
            tell(batches, step, value, bits)
