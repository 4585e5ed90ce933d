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

__all__ = ["Decision", "best_after", "decide"]


@dataclass(frozen=True, slots=True)
class Decision:
    """What came of a moment.

    Attributes:
        reasons: why a snapshot is due, each once; empty if none is.
        past: what later decisions must remember.
        rest: how long nothing can be due, unless something happens: moments in between need not be decided.
        lacks: the metrics that functions of the user's looked up in vain.
    """

    reasons: tuple[str, ...]
    past: Past
    rest: Rest
    lacks: frozenset[str] = frozenset()


def decide(moment: Moment, past: Past, trigger: Trigger, monitors: Sequence[Monitor] = ()) -> Decision:
    """Ask the trigger, once, and fold the moment into the past. A manual request always saves.

    Args:
        moment: the present.
        past: what the last decision returned.
        trigger: bound; see `ckpt_callbacks.engine.triggers.resolve`.
        monitors: further monitors whose best value is remembered.

    Raises:
        ConfigurationError: a monitored metric is no single number, or the trigger is not bound.
    """
    reasons, lacks = trigger.ask(moment, past)
    if moment.events and Event.MANUAL in moment.events:
        reasons += (f"manual: {moment.note}" if moment.note else "manual",)
    best = best_after(moment, past, trigger, monitors)
    each_once = tuple(dict.fromkeys(reasons))
    return Decision(each_once, Past(moment.progress, moment.elapsed, best), trigger.rest(moment), lacks)


def best_after(moment: Moment, past: Past, trigger: Trigger, monitors: Sequence[Monitor] = ()) -> Mapping[str, float]:
    """The best value so far of each monitor, this moment's counted; it is what `decide` folds into the past."""
    if not moment.metrics or not moment.healthy:
        return past.best
    best = dict(past.best)
    for monitor in (*monitors, *trigger.monitors):
        value = monitor.value(moment.metrics)
        if value is not None and monitor.improves(value, past.best.get(monitor.key)):
            best[monitor.key] = value
    return best
