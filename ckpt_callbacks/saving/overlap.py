"""Whether a snapshot is copied while training goes on, or before it does: whatever takes training less time."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import deque
from pathlib import Path
from statistics import median

__all__ = ["IdleCores", "Overlap"]

ENOUGH = 0.75
"""How much of a core must have been idle: a copy beside training that takes its cores costs more than it hides."""

SAMPLES = 3
"""How many snapshots of either way are compared."""

AGAIN = 20
"""How often the other way is tried again: training may change."""

_QUOTA = Path("/sys/fs/cgroup/cpu.max")


class IdleCores:
    """Cores that were not used since the last look: of those that this process may use, by its own measure."""

    def __init__(self) -> None:
        self._may_use = _may_use()
        self._used, self._at = time.process_time(), time.monotonic()

    def look(self) -> float:
        """How many were idle, on the average, since the last look. Child processes count as one used core each."""
        used, now = time.process_time(), time.monotonic()
        spent, passed = used - self._used, now - self._at
        self._used, self._at = used, now
        if passed <= 0:
            return 0.0
        return self._may_use - spent / passed - len(multiprocessing.active_children())


class Overlap:
    """Decides for each snapshot of a fit, from what was measured.

    With a core idle, the copy costs training nothing. With none, it may still cost less than to wait for it, or more:
    both ways are tried in turn, and the one is taken after which the next batch was done sooner.
    """

    def __init__(self) -> None:
        self._cores = IdleCores()
        self._took: dict[bool, deque[float]] = {beside: deque(maxlen=SAMPLES) for beside in (True, False)}
        self._way: bool | None = None  # of the last snapshot, if what it costs counts
        self._saves = 0

    def pays(self) -> bool:
        """Whether to copy beside training."""
        self._saves += 1
        beside = self.is_free() or self._sooner()
        self._way = beside if self._saves > 1 else None  # the first one touches memory that is new
        return beside

    def is_free(self) -> bool:
        """Whether a copy beside training costs it nothing: a core is idle."""
        return self._cores.look() >= ENOUGH

    def _sooner(self) -> bool:
        few = min(map(len, self._took.values())) < SAMPLES
        beside = (
            len(self._took[True]) <= len(self._took[False])
            if few
            else median(self._took[True]) < median(self._took[False])
        )
        return beside if few or self._saves % AGAIN else not beside

    def took(self, seconds: float) -> None:
        """From the last snapshot's boundary to the next boundary it took so long."""
        if self._way is not None:
            self._took[self._way].append(seconds)
            self._way = None


def _may_use() -> float:
    """Cores that the process may run on, or the share of them that a container grants it."""
    cores = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    try:
        quota, _, period = _QUOTA.read_text().partition(" ")
        return min(cores, int(quota) / int(period))
    except (OSError, ValueError):  # no such file, or "max": no limit
        return cores
