"""What the engine is told: events, progress, moments."""
from __future__ import annotations
import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, asdict
from typing import Any
class Event(enum.Flag):
    NONE = 0
    VALIDATION_END = enum.auto()
    EPOCH_END = enum.auto()
    FIT_END = enum.auto()
    EXCEPTION = enum.auto()
    SIGNAL = enum.auto()
    MANUAL = enum.auto()
@dataclass(frozen=True, slots=True)
class Progress:
    step: int = 0
    epoch: int = 0
    batch: int = 0
    batches: int = 0
    def as_dict(self): return asdict(self)
    @classmethod
    def from_dict(cls, d): return cls(**d)
@dataclass(frozen=True, slots=True)
class Moment:
    progress: Progress
    elapsed: float = 0.0
    events: Event = Event.NONE
    metrics: Mapping[str, Any] = field(default_factory=dict)
    note: str | None = None
