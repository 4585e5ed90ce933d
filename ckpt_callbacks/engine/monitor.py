"""Monitor."""
from __future__ import annotations
import math
from dataclasses import dataclass
def to_float(x, strict=True):
    try: return float(x.item() if hasattr(x, "item") else x)
    except Exception:
        if strict: raise
        return None
@dataclass(frozen=True)
class Monitor:
    metric: str
    mode: str = "auto"
    min_delta: float = 0.0
    def __post_init__(self):
        if self.mode == "auto": object.__setattr__(self, "mode", "max" if "acc" in self.metric else "min")
    @property
    def key(self): return f"{self.metric}:{self.mode}"
    def as_dict(self): return {"metric": self.metric, "mode": self.mode, "min_delta": self.min_delta}
    def value(self, metrics): return to_float(metrics[self.metric]) if self.metric in metrics else None
    def better(self, a, b): return a < b if self.mode == "min" else a > b
    def improves(self, v, best):
        if not math.isfinite(v): return False
        if best is None: return True
        return v < best - self.min_delta if self.mode == "min" else v > best + self.min_delta
def resolve(monitor, mode="auto", min_delta=0.0):
    if monitor is None: return ()
    if isinstance(monitor, str): return (Monitor(monitor, mode, min_delta),)
    if isinstance(monitor, Monitor): return (monitor,)
    return tuple(m for one in monitor for m in resolve(one, mode, min_delta))
