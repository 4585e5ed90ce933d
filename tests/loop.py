"""The smallest adapter, and a checkpointer for it: for tests that need neither framework."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ckpt_callbacks import every_steps, on_best
from ckpt_callbacks.checkpointer import BaseCheckpointer
from ckpt_callbacks.engine import Event, Progress
from ckpt_callbacks.state.captured import Captured
from ckpt_callbacks.store import fingerprint

__all__ = ["Loop", "checkpointer"]


class Loop:
    """The smallest adapter: weights that grow by one a step, a metric at each fourth step."""

    def __init__(self, checkpointer: BaseCheckpointer, extra: object = None) -> None:
        self.checkpointer, self.extra = checkpointer, extra
        self.weights, self.step = np.zeros(4), 0
        self.loss = lambda step: 1 / step
        self.metrics = lambda step: {"loss": abs(step - 8)}
        self.growth: float = 1

    def capture(self) -> Captured:
        return Captured(
            {"w": self.weights}, {"step": self.step, "extra": self.extra, "hparams": object()}, ("hparams",)
        )

    def restore(self, weights: Mapping[str, Any], rest: Mapping[str, Any]) -> None:
        self.weights, self.step = weights["w"], rest["step"]

    def advance(self) -> None:
        self.weights += self.growth
        self.step += 1

    def run(self, steps: int, *, fail_at: int | None = None) -> Loop:
        """Train until ``steps``, as a framework would call an adapter."""
        restored = self.checkpointer.begin({})
        self.checkpointer.rehearse(self.capture())
        if restored is not None:
            self.restore(restored.weights, restored.rest)
            self.checkpointer.resumed_at(restored, complete=self.step >= steps)
        try:
            while self.step < steps:
                if self.step == fail_at:
                    raise RuntimeError("killed")
                self.advance()
                loss = self.loss(self.step)
                self.checkpointer.stepped(self.step, self.step, loss, fingerprint(loss))
                validated = self.step % 4 == 0
                last = self.step == steps
                events = (Event.VALIDATION_END if validated else Event.NONE) | (Event.FIT_END if last else Event.NONE)
                metrics = self.metrics(self.step) if validated else {}
                self.checkpointer.boundary(Progress(self.step, 0, self.step, self.step), events, metrics, self.capture)
        except BaseException:
            self.checkpointer.failed()
            raise
        finally:
            self.checkpointer.end()
        return self


def checkpointer(tmp_path, **options) -> BaseCheckpointer:
    return BaseCheckpointer(tmp_path / "run", **{"monitor": "loss", "save": every_steps(2) | on_best(), **options})
