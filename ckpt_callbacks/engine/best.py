"""Best: whether the values that decisions remember are those of snapshots that there are.

A value counts when it is measured. Its snapshot is safe later, or never: the disk was full, its weights turned out to
be no numbers, somebody deleted it. Nothing shall be measured against a value that nobody can find again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from ckpt_callbacks.engine.monitor import Monitor
from ckpt_callbacks.engine.rules import best_of
from ckpt_callbacks.engine.snapshot import Record
from ckpt_callbacks.engine.triggers import Past

__all__ = ["best_values", "found_again", "without_lost"]


def best_values(records: Iterable[Record], monitors: Iterable[Monitor]) -> dict[str, float]:
    """The best by each of the monitors, by its key, if these snapshots are all there is."""
    present = list(records)
    best = {monitor: best_of(present, monitor) for monitor in monitors}
    values = {monitor.key: monitor.value(record.metrics) for monitor, record in best.items() if record is not None}
    return {key: value for key, value in values.items() if value is not None}


def without_lost(
    past: Past, lost: Sequence[Mapping[str, float]], records: Iterable[Record], monitors: Iterable[Monitor]
) -> Past:
    """What decisions remember if snapshots with the metrics ``lost`` came to nothing, and ``records`` are there."""
    gone = [one for one in monitors if one.key in past.best and _is_among(past.best[one.key], lost, one)]
    return _as_there(past, gone, records)


def found_again(past: Past, records: Sequence[Record], monitors: Sequence[Monitor]) -> Past:
    """What decisions remember if ``records`` are there, of monitors whose best is always saved and kept (`promised`).

    What is there may be better than what is remembered: by less than ``min_delta``.
    """
    there = best_values(records, monitors)
    gone = [one for one in monitors if one.key in past.best and _is_gone(past.best[one.key], there, one)]
    return _as_there(past, gone, records)


def _is_among(value: float, lost: Iterable[Mapping[str, float]], monitor: Monitor) -> bool:
    return any(monitor.value(metrics) == value for metrics in lost)


def _is_gone(value: float, there: Mapping[str, float], monitor: Monitor) -> bool:
    return monitor.key not in there or monitor.better(value, there[monitor.key])


def _as_there(past: Past, gone: Sequence[Monitor], records: Iterable[Record]) -> Past:
    """The same, with the best of ``records`` in the place of what is gone."""
    if not gone:
        return past
    keys = {monitor.key for monitor in gone}
    left = {key: value for key, value in past.best.items() if key not in keys}
    return replace(past, best={**left, **best_values(records, gone)})
