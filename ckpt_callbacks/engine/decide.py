"""Decide: one pure function from a moment and the past to the reasons for a snapshot, and the new past.

What the decision learned is folded into the past that it returns, and that past goes into the snapshot it caused: a
resumed run therefore decides exactly as the uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ckpt_callbacks.engine.moment import Event, Moment
from ckpt_callbacks.engine.monitor import Monitor
from ckpt_callbacks.engine.rest import Rest
from ckpt_callbacks.engine.triggers import Past, Trigger

__all__ = ["Decision", "decide"]


@dataclass(frozen=True, slots=True)
class Decision:
    """What came of a moment.

    Attributes:
        reasons: why a snapshot is due, each once; empty if none is.
        past: what later decisions must remember.
        rest: how long nothing can be due, unless something happens: moments in between need not be decided.
    """

    reasons: tuple[str, ...]
    past: Past
    rest: Rest


def decide(moment: Moment, past: Past, trigger: Trigger, monitors: Sequence[Monitor] = ()) -> Decision:
    """Ask the trigger, and fold the moment into the past. A manual request always saves.

    Args:
        moment: the present.
        past: what the last decision returned.
        trigger: bound; see `ckpt_callbacks.engine.triggers.resolve`.
        monitors: further monitors whose best value is remembered.

    Raises:
        ConfigurationError: a monitored metric is no single number, or the trigger is not bound.
    """
    reasons = trigger(moment, past)
    if moment.events and Event.MANUAL in moment.events:
        reasons += (f"manual: {moment.note}" if moment.note else "manual",)
    best = _best(moment, past, (*monitors, *trigger.monitors)) if moment.metrics and moment.healthy else past.best
    each_once = tuple(dict.fromkeys(reasons))
    return Decision(each_once, Past(moment.progress, moment.elapsed, best), trigger.rest(moment))


def _best(moment: Moment, past: Past, monitors: Sequence[Monitor]) -> Mapping[str, float]:
    best = dict(past.best)
    for monitor in monitors:
        value = monitor.value(moment.metrics)
        if value is not None and monitor.improves(value, past.best.get(monitor.key)):
            best[monitor.key] = value
    return best
