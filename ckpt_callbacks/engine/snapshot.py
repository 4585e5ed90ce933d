"""What the retention rules see of a committed snapshot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ckpt_callbacks.engine.moment import Progress

__all__ = ["Content", "Record"]

Content = Literal["full", "weights"]


@dataclass(frozen=True)
class Record:
    """A committed snapshot, as data.

    Attributes:
        id: its name in the run.
        sequence: number of its commit; the order of snapshots (clocks are not).
        progress: where training stood.
        metrics: what was measured on its weights.
        reasons: why it was saved.
        created: when its state was captured, in seconds since 1970 (UTC); for people, never for order.
        elapsed: seconds that the run had trained by then.
        content: ``"full"`` can be resumed from, ``"weights"`` can't.
        size: bytes.
        parent: id of the snapshot that it continues from, or None.
        note: what the user wrote beside it, or None.
        pinned: whether the user pinned it.
        pin_note: what they wrote on the pin, or None.
        own: whether this run took it; False if somebody put a snapshot of another run beside its own.
        healthy: whether its weights and losses were finite numbers.
        line: 0 for the line of training that the newest snapshot continues; another number for each that was
            abandoned, when training went back to an older snapshot.
    """

    id: str
    sequence: int
    progress: Progress = field(default_factory=Progress)
    metrics: Mapping[str, float] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()
    created: float = 0.0
    elapsed: float = 0.0
    content: Content = "full"
    size: int = 0
    parent: str | None = None
    note: str | None = None
    pinned: bool = False
    pin_note: str | None = None
    own: bool = True
    healthy: bool = True
    line: int = 0

    @property
    def step(self) -> int:
        """Optimizer steps."""
        return self.progress.step

    @property
    def epoch(self) -> int:
        """Epochs completed."""
        return self.progress.epoch
