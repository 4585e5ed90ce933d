"""Simulate: what a policy would save and keep over a whole run, before a job is launched.

The same `decide` and `judge` that a run uses are asked at every step of an imagined one. Its metrics are imagined as
well: every monitored one improves fast at first and then more and more slowly, with a wave on it, so that some
validations are the best so far and some are not.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ckpt_callbacks.engine.decide import decide
from ckpt_callbacks.engine.docket import Docket
from ckpt_callbacks.engine.moment import Event, Moment, Progress
from ckpt_callbacks.engine.monitor import Monitor
from ckpt_callbacks.engine.retention import Rule, Verdict
from ckpt_callbacks.engine.snapshot import Record
from ckpt_callbacks.engine.triggers import Past, Trigger

__all__ = ["Simulation", "Tidied", "simulate"]


@dataclass(frozen=True, slots=True)
class Tidied:
    """What is on the disk after a save.

    Attributes:
        record: what was saved.
        count: how many snapshots are kept.
        nbytes: how many bytes they take.
    """

    record: Record
    count: int
    nbytes: int


@dataclass(frozen=True)
class Simulation:
    """An imagined run.

    Attributes:
        saves: one for each save, in order.
        kept: what is there at the end, oldest first.
        why: id of each of these -> the reasons why it is kept.
    """

    saves: tuple[Tidied, ...]
    kept: tuple[Record, ...]
    why: Mapping[str, tuple[str, ...]]

    @property
    def peak(self) -> int:
        """The most bytes there ever are at once, the one that is being written included."""
        return max((save.nbytes + save.record.size for save in self.saves), default=0)

    @property
    def written(self) -> int:
        """Bytes of all snapshots that are saved; what they share is not counted off."""
        return sum(save.record.size for save in self.saves)

    def at(self, step: int) -> Tidied | None:
        """What the disk holds at a step: as the last save until then left it; None before the first."""
        count = bisect_right(self.saves, step, key=lambda save: save.record.step)
        return self.saves[count - 1] if count else None


def simulate(
    trigger: Trigger,
    rules: Sequence[Rule],
    *,
    steps: int,
    step_time: float,
    size: int,
    epoch_steps: int = 1000,
    weights_share: float = 1 / 3,
    monitors: Sequence[Monitor] = (),
) -> Simulation:
    """Train, in mind only.

    Args:
        trigger, rules: bound, see `resolve` of either.
        steps: optimizer steps of the run; a batch each.
        step_time: seconds that one takes.
        size: bytes of a full snapshot.
        epoch_steps: steps in an epoch; each ends with a validation.
        weights_share: how much of a snapshot is left when only its weights are.
        monitors: the metrics that every validation measures.
    """
    past, docket, saves, verdict = Past(), Docket(rules), list[Tidied](), Verdict({}, {})
    step = 0
    while step < steps:
        step = _next(step, steps, epoch_steps, trigger, step_time)
        ended, over = step % epoch_steps == 0, step == steps
        events = (Event.EPOCH_END | Event.VALIDATION_END if ended else Event.NONE) | (
            Event.FIT_END if over else Event.NONE
        )
        metrics = {one.metric: _imagined(one, step / steps) for one in monitors} if ended else {}
        progress = Progress(step, step // epoch_steps, step % epoch_steps, step)
        decision = decide(Moment(progress, step * step_time, events, metrics), past, trigger, monitors)
        past = decision.past
        if not decision.reasons:
            continue
        record = Record(
            f"{step:09d}", len(saves) + 1, progress, metrics, decision.reasons, elapsed=past.elapsed, size=size
        )
        verdict = docket.judge(record)
        for id in verdict.demote:
            docket.reduced(id, int(size * weights_share))
        saves.append(Tidied(record, docket.count, docket.nbytes))
    return Simulation(tuple(saves), tuple(docket.kept()), {**verdict.keep, **docket.why()})


def _next(step: int, steps: int, epoch_steps: int, trigger: Trigger, step_time: float) -> int:
    """The next step at which something can be due: nothing can in between, as the trigger itself says."""
    progress = Progress(step, step // epoch_steps, step % epoch_steps, step)
    rest = trigger.rest(Moment(progress, step * step_time))
    quiet = min(rest.steps, rest.batches, math.ceil(rest.seconds / step_time) if rest.seconds < math.inf else math.inf)
    return int(min(step + max(1, quiet), (step // epoch_steps + 1) * epoch_steps, steps))


def _imagined(monitor: Monitor, done: float) -> float:
    """A loss from 1 towards 0.1, or a score from 0 towards 0.9."""
    loss = 0.1 + 0.9 * math.exp(-5 * done) * (1 + 0.05 * math.sin(400 * done)) + 0.01 * math.sin(170 * done)
    return loss if monitor.mode == "min" else 1 - loss
