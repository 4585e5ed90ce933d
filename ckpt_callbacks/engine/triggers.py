"""Triggers."""
from __future__ import annotations
from dataclasses import dataclass, field
from .moment import Event, Progress
from .monitor import Monitor
@dataclass(frozen=True, slots=True)
class Past:
    seen: Progress = Progress()
    elapsed: float = 0.0
    best: dict = field(default_factory=dict)
    def as_dict(self): return {"seen": self.seen.as_dict(), "elapsed": self.elapsed, "best": dict(self.best)}
    @classmethod
    def from_dict(cls, d): return cls(Progress.from_dict(d["seen"]), d["elapsed"], dict(d["best"]))
class Trigger:
    def __init__(self, f, monitors=()): self.f, self.monitors = f, monitors
    def __call__(self, m, p): return self.f(m, p)
    def __or__(self, o): return Trigger(lambda m, p: self(m, p) + o(m, p), self.monitors + o.monitors)
    def __and__(self, o): return Trigger(lambda m, p: (self(m, p) + o(m, p)) if self(m, p) and o(m, p) else (), self.monitors + o.monitors)
    def bind(self, ms): self._ms = ms; return self
def _per(n, name, text): return Trigger(lambda m, p: (text,) if getattr(m.progress, name)//n > getattr(p.seen, name)//n else ())
def every_steps(n): return _per(n, "step", f"every_steps({n})")
def every_batches(n): return _per(n, "batches", f"every_batches({n})")
def every_epochs(n): return _per(n, "epoch", f"every_epochs({n})")
def every(s): return Trigger(lambda m, p: (f"every({s})",) if m.elapsed//s > p.elapsed//s else ())
MS = []
def on_best(monitor=None):
    def f(m, p):
        mon = monitor or MS[0]
        v = mon.value(m.metrics)
        return (f"best {mon.metric} {v:.4g}",) if v is not None and mon.improves(v, p.best.get(mon.key)) else ()
    return Trigger(f)
def _ev(e, t): return Trigger(lambda m, p: (t,) if e in m.events else ())
def on_end(): return _ev(Event.FIT_END, "end of fit")
def on_exception(): return _ev(Event.EXCEPTION, "exception")
def on_signal(): return _ev(Event.SIGNAL, "signal")
def when(f): return Trigger(lambda m, p: ("when",) if f(m) else ())
def resolve(save, monitors):
    MS[:] = monitors
    if save is None:
        save = every_epochs(1) | on_end() | on_exception() | on_signal()
        if monitors: save = save | on_best()
    return save
