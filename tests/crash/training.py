"""A small training over the real saving machinery: real tensors of all sizes, and random numbers that it draws.

Its state after a step depends on nothing but the seed and the step, so whatever is found on a disk can be compared with
`state_at`, bit for bit.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from ckpt_callbacks import every_steps, keep_best, keep_last, on_best, weights_after
from ckpt_callbacks.checkpointer import BaseCheckpointer
from ckpt_callbacks.state.captured import Captured
from tests.loop import Loop

__all__ = ["Training", "digests", "state_at", "train"]

OPTIONS: dict[str, Any] = {
    "monitor": "loss",
    "mode": "min",
    "save": every_steps(2) | on_best(),
    "keep": [keep_last(3), keep_best(1), weights_after(2)],
}


class Training(Loop):
    """Weights that move by random numbers.

    Some are frozen, some large (each seed has other sizes), so that files are linked and written past the page cache.
    """

    def __init__(self, checkpointer: BaseCheckpointer | None, seed: int = 0) -> None:
        super().__init__(checkpointer)  # type: ignore[arg-type]
        sizes = np.random.default_rng(seed)
        self.random = np.random.default_rng(seed)
        self.weights = self.random.random(int(sizes.integers(1, 2000)))
        self.frozen = self.random.random(int(sizes.choice([150, 140_000])))
        self.moments = self.random.random(int(sizes.choice([0, 300, 135_000])))
        self.metrics = lambda step: {"loss": (step * 2654435761 + seed) % 97 / 97}

    def advance(self) -> None:
        drawn = self.random.random(len(self.weights))
        self.weights = self.weights * 0.9 + drawn
        self.moments = self.moments * 0.9 + drawn[0]
        self.step += 1

    def capture(self) -> Captured:
        rest = {"step": self.step, "moments": self.moments, "random": self.random.bit_generator.state}
        return Captured({"w": self.weights, "frozen": self.frozen}, rest, frozen={"frozen"})

    def restore(self, weights: Mapping[str, Any], rest: Mapping[str, Any]) -> None:
        self.weights, self.frozen = weights["w"], weights["frozen"]
        self.step, self.moments = rest["step"], rest["moments"]
        self.random.bit_generator.state = rest["random"]


def train(directory: Path, steps: int, seed: int = 0, **options: Any) -> Training:
    """Train a run until ``steps``, from wherever it is."""
    return Training(BaseCheckpointer(directory, **{**OPTIONS, **options}), seed).run(steps)


def digests(weights: Mapping[str, Any], rest: Mapping[str, Any] | None) -> dict[str, str]:
    """Digests of the parts of a state, as it was captured or restored; of its weights only without ``rest``."""
    found = {name: _digest(value) for name, value in weights.items()}
    if rest is not None:
        found |= {"moments": _digest(rest["moments"]), "random": str(rest["random"]), "step": str(rest["step"])}
    return found


@functools.cache
def state_at(step: int, seed: int) -> dict[str, str]:
    """`digests` of the state after so many steps that nobody disturbed."""
    training = Training(None, seed)
    while training.step < step:
        training.advance()
    captured = training.capture()
    return digests(captured.weights, captured.rest)


def _digest(value: Any) -> str:
    array = np.asarray(value)
    return f"{array.dtype}{array.shape}{xxhash.xxh3_128_hexdigest(array.tobytes())}"
