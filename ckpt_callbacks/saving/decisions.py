"""Decisions: what a fit decides at its boundaries, and what it remembers from one to the next.

The engine decides about one moment and a past; here the moments are made of what an adapter reports, and the past is
carried on. It has no effect but warnings.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ckpt_callbacks import engine
from ckpt_callbacks.engine import Decision, Event, Moment, Monitor, Past, Progress, Record, Trigger, Watch
from ckpt_callbacks.messages import warn
from ckpt_callbacks.saving.reserve import Reserve
from ckpt_callbacks.state.captured import Captured
from ckpt_callbacks.state.files.health import first_not_finite

__all__ = ["Decisions", "Ruling"]

_AT_ONCE = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Ruling:
    """What was decided at a boundary.

    Attributes:
        moment: the boundary.
        past: what was remembered when it was reached.
        decision: what came of it.
        unhealthy: what makes its state no good, as far as that is known by now.
    """

    moment: Moment
    past: Past
    decision: Decision
    unhealthy: str | None


class Decisions:
    """Of one fit. Begins as if nothing had ever happened.

    Args:
        trigger: says what is saved.
        monitors: those of the checkpointer.

    Attributes:
        past: what the next decision remembers, but for boundaries that were passed over since.
        loss: of the last step.
    """

    def __init__(self, trigger: Trigger, monitors: Sequence[Monitor]) -> None:
        self._trigger, self._monitors = trigger, tuple(monitors)
        self.past, self.loss = Past(), 0.0
        self._began = time.monotonic()  # when this process began to train, less what earlier ones trained
        self._until = _AT_ONCE  # when the next decision can be due
        self._passed: tuple[int, int, float] | None = None  # the last boundary since then at which nothing could be
        self._reserve = Reserve(math.inf)
        self._watch = Watch((), trigger, self.past)

    @property
    def followed(self) -> tuple[Monitor, ...]:
        """The monitors whose best values are remembered."""
        return (*self._monitors, *self._trigger.monitors)

    def carry_on(self, past: Past) -> None:
        """This is what an earlier process remembered. Training goes on from here: to get here was none."""
        self.past = past
        self._began = time.monotonic() - past.elapsed

    def watch(self, further: Iterable[Monitor], validates: bool) -> None:
        """Look whether anything can ever be saved, and from now on whether what is monitored is measured at all.

        Args:
            further: monitors of others.
            validates: whether this fit will validate.
        """
        self._watch = Watch((*self.followed, *further), self._trigger, self.past, validates)
        for sentence in self._watch.start():
            warn(sentence)

    def rests(self, step: int, batches: int) -> bool:
        """Whether nothing can be due at this boundary, if nothing happened since the last ruling. It is remembered.

        Args:
            step, batches: as in `Progress`.
        """
        due_step, due_batches, due_time = self._until
        now = time.monotonic()
        if step >= due_step or batches >= due_batches or now >= due_time:
            return False
        self._passed = step, batches, now
        return True

    def rule(
        self,
        progress: Progress,
        now: float,
        events: Event,
        metrics: Mapping[str, Any],
        note: str | None,
        signal: str | None,
        capture: Callable[[], Captured],
    ) -> Ruling:
        """Decide at a boundary.

        Weights are looked at before a new best value counts. The writer does so for every snapshot, but too late for
        this: by then others may have been measured against it.

        Args:
            progress, events, metrics, note, signal: as of `Moment`.
            now: when it was reached, on the monotonic clock.
            capture: gives its state; called only if that has to be looked at.

        Raises:
            ConfigurationError: an epoch has ended, and no snapshot can ever be taken.
        """
        unhealthy = self._unhealthy(metrics) if metrics or not math.isfinite(self.loss) else None
        moment = Moment(progress, now - self._began, events, metrics, note, signal, unhealthy is None)
        past = self._seen()
        if engine.best_after(moment, past, self._trigger, self._monitors) != past.best:
            captured = capture()
            weight = first_not_finite(captured.changing, captured.watched)
            if weight is not None:
                unhealthy = f"{weight} is not finite"
                moment = replace(moment, healthy=False)
        decision = engine.decide(moment, past, self._trigger, self._monitors)
        for sentence in self._watch.see(moment, decision.lacks):
            warn(sentence)
        self.past, rest = decision.past, decision.rest
        self._until = (
            progress.step + rest.steps,
            progress.batches + rest.batches,
            min(self._began + moment.elapsed + rest.seconds, self._reserve.due),
        )
        return Ruling(moment, past, decision, unhealthy)

    def _seen(self) -> Past:
        """What is remembered, the boundaries included that were passed over since the last ruling."""
        passed, self._passed = self._passed, None
        if passed is None:
            return self.past
        step, batches, now = passed
        return self.past.passed(step, batches, now - self._began)

    def _unhealthy(self, metrics: Mapping[str, Any]) -> str | None:
        """The monitored metric, loss by name, or loss of the last step, that is no finite number; None if all are."""
        monitored = {monitor.metric for monitor in self.followed}
        telling = {name: value for name, value in metrics.items() if name in monitored or engine.is_loss(name)}
        for name, value in engine.numbers(telling).items():
            if not math.isfinite(value):
                return f"{name} is {value}"
        return None if math.isfinite(self.loss) else f"the loss of the last step is {self.loss}"

    def forget(self, lost: Sequence[Mapping[str, float]], there: Sequence[Record]) -> None:
        """Take best values back whose snapshots came to nothing: the next that is better than what there is counts.

        Args:
            lost: the metrics of those.
            there: the snapshots that there are, or will be.
        """
        self.past = engine.without_lost(self.past, lost, there, self.followed)

    # In reserve ------------------------------------------------------------------------------------------------------

    def keep_reserve(self, nbytes: int) -> None:
        """From now on have a state in reserve now and then, of about this size, if an exception shall save one."""
        if self._trigger.on_failure:
            self._reserve = Reserve(time.monotonic(), nbytes)

    def in_reserve(self, ruling: Ruling, busy: bool) -> Ruling | None:
        """What would come of an exception here, if it is time to have that state in reserve; else None.

        The last boundary's state is held whatever that costs: what training ended with may yet be lost, by the error of
        a callback. An unhealthy state is none to carry on from; the one before it stays.

        Args:
            ruling: on this boundary, at which nothing is saved.
            busy: whether the last snapshot is still being written.
        """
        moment, past = ruling.moment, ruling.past
        moved = moment.progress.batches > past.seen.batches  # else a snapshot has it, or it is the beginning
        last = Event.FIT_END in moment.events and self._reserve.due < math.inf
        if ruling.unhealthy or not moved or not (last or self._reserve.may(time.monotonic(), busy)):
            return None
        failed = replace(moment, events=moment.events | Event.EXCEPTION)
        return Ruling(failed, past, engine.decide(failed, past, self._trigger, self._monitors), None)

    def held(self, seconds: float, nbytes: int) -> None:
        """A state is in reserve: to think of it and to copy so much took so long."""
        self._reserve.took(seconds, nbytes)
        self._ask_again()

    def hold_no_more(self) -> None:
        """It can't be done."""
        self._reserve = Reserve(math.inf)
        self._ask_again()

    def _ask_again(self) -> None:
        step, batches, due = self._until
        self._until = step, batches, min(due, self._reserve.due)
