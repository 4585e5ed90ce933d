"""Retention."""
from __future__ import annotations
import math
from dataclasses import dataclass
@dataclass(frozen=True)
class Verdict:
    keep: dict
    drop: dict
def keep_last(n): return lambda rs: {r.id: f"keep_last({n})" for r in rs[-n:]}
def best_of(rs, mon):
    c = [r for r in rs if (v := mon.value(r.metrics)) is not None and math.isfinite(v)]
    out = None
    for r in c:
        if out is None or mon.better(mon.value(r.metrics), mon.value(out.metrics)): out = r
    return out
def keep_best(k, monitor=None):
    def f(rs, mon=None):
        from .triggers import MS
        b = best_of(rs, monitor or MS[0]); return {b.id: "best"} if b else {}
    return f
def keep_every_steps(n): return lambda rs: {}
def keep_all(): return lambda rs: {r.id: "all" for r in rs}
def keep_when(f): return lambda rs: {r.id: "when" for r in rs if f(r)}
def resolve(keep, monitors):
    if keep is None: return (keep_last(2),) + ((keep_best(1),) if monitors else ())
    return tuple(keep) if isinstance(keep, (list, tuple)) else (keep,)
def judge(rs, rules):
    keep = {rs[-1].id: ("newest",)} if rs else {}
    for rule in rules:
        for i, why in rule(rs).items(): keep[i] = keep.get(i, ()) + (why,)
    return Verdict(keep, {r.id: "no rule" for r in rs if r.id not in keep})
