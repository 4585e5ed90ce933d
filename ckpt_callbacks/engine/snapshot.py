"""Record."""
from __future__ import annotations
from dataclasses import dataclass, field
from .moment import Progress
@dataclass(frozen=True)
class Record:
    id: str
    sequence: int
    progress: Progress = Progress()
    metrics: dict = field(default_factory=dict)
    reasons: tuple = ()
    created: float = 0.0
    elapsed: float = 0.0
    content: str = "full"
    size: int = 0
    parent: str | None = None
    note: str | None = None
    pinned: bool = False
    @property
    def step(self): return self.progress.step
    @property
    def epoch(self): return self.progress.epoch
