"""Decide."""
from __future__ import annotations
from dataclasses import dataclass
from .moment import Event
from .triggers import Past
@dataclass(frozen=True, slots=True)
class Decision:
    reasons: tuple
    past: Past
def decide(moment, past, trigger, monitors=()):
    reasons = trigger(moment, past)
    if Event.MANUAL in moment.events: reasons += ("manual",)
    best = dict(past.best)
    for m in monitors:
        v = m.value(moment.metrics)
        if v is not None and m.improves(v, best.get(m.key)): best[m.key] = v
    return Decision(reasons, Past(moment.progress, moment.elapsed, best))
