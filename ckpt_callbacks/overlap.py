"""Whether a snapshot is copied while training goes on, or before it does: whatever takes training less time."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

__all__ = ["IdleCores", "Overlap"]

ENOUGH = 0.75
"""How much of a core must have been idle: a copy beside training that takes its cores costs more than it hides."""

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

    Args:
        possible: whether there is anything that could go on meanwhile.
    """

    def __init__(self, possible: bool) -> None:
        self._possible, self._proved = possible, False
        self._cores = IdleCores()

    def pays(self, measured: bool) -> bool:
        """Whether to copy beside training.

        Args:
            measured: metrics were measured on this very state, so that it could not be taken again a step later. No
                such state is the first one that is tried.
        """
        idle = self._cores.look()
        return self._possible and idle >= ENOUGH and (self._proved or not measured)

    def came_out(self, whole: bool) -> None:
        """What became of a copy that was made so: once something changed it under way, none is made so any more."""
        self._possible, self._proved = self._possible and whole, whole


def _may_use() -> float:
    """Cores that the process may run on, or the share of them that a container grants it."""
    cores = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    try:
        quota, _, period = _QUOTA.read_text().partition(" ")
        return min(cores, int(quota) / int(period))
    except (OSError, ValueError):  # no such file, or "max": no limit
        return cores
