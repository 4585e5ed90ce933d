"""What the engine is told: where training stands, what happened, what was measured."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Event", "Moment", "Progress"]


class Event(enum.Flag):
    """What happened since the previous moment; several at once are joined by ``|``."""

    NONE = 0
    #: A validation ended: metrics were measured on the present weights.
    VALIDATION_END = enum.auto()
    #: An epoch ended.
    EPOCH_END = enum.auto()
    #: Training ended.
    FIT_END = enum.auto()
    #: Training is about to end with an exception.
    EXCEPTION = enum.auto()
    #: The process was asked to save by a signal, such as SIGTERM.
    SIGNAL = enum.auto()
    #: The user asked for a snapshot.
    MANUAL = enum.auto()


@dataclass(frozen=True, slots=True)
class Progress:
    """Where training stands.

    Attributes:
        step: optimizer steps of the run, as the framework counts them.
        epoch: epochs completed, which is also the index of the current one.
        batch: batches finished in the current epoch.
        batches: batches finished in the run.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    batches: int = 0

    def as_dict(self) -> dict[str, int]:
        """The four counts by name, for JSON."""
        return {"step": self.step, "epoch": self.epoch, "batch": self.batch, "batches": self.batches}

    @classmethod
    def from_dict(cls, counts: Mapping[str, int]) -> Progress:
        """The inverse of `as_dict`."""
        return cls(counts["step"], counts["epoch"], counts["batch"], counts["batches"])


@dataclass(frozen=True, slots=True)
class Moment:
    """One clean boundary: the instant before the next batch, or the end of training.

    Attributes:
        progress: where training stands.
        elapsed: seconds that the run has trained, over all resumes. Time arrives here; nobody reads a clock.
        events: what happened since the previous moment.
        metrics: what was measured since the previous moment: floats, 0-d tensors or numpy scalars by name.
        note: what the user wrote beside a manual snapshot, or None.
        healthy: whether its losses and monitored metrics are finite numbers, as far as that is known by now. If not,
            nothing that was measured counts as the best.
        signal: name of the signal that came, such as ``"SIGTERM"``, or None.
    """

    progress: Progress
    elapsed: float = 0.0
    events: Event = Event.NONE
    metrics: Mapping[str, Any] = field(default_factory=dict)
    note: str | None = None
    signal: str | None = None
    healthy: bool = True
