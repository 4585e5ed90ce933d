"""What a fit decides at its boundaries: the past is carried on, and those at which nothing can be are passed over."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import pytest

from ckpt_callbacks import every_steps, on_best, on_exception
from ckpt_callbacks.engine import Event, Past, Progress, Trigger, resolve_monitors, resolve_triggers
from ckpt_callbacks.saving import Decisions, Ruling
from ckpt_callbacks.state.captured import Captured

MONITORS = resolve_monitors("loss", "min", 0.0)


SAVE = every_steps(10) | on_best() | on_exception()


def decisions(save: Trigger = SAVE) -> Decisions:
    return Decisions(resolve_triggers(save, MONITORS), MONITORS)


def rule(
    ours: Decisions,
    step: int,
    event: Event = Event.NONE,
    capture: Callable[[], Captured] | None = None,
    **metrics: float,
) -> Ruling:
    """At the boundary after so many steps of a batch each."""
    capture = capture or (lambda: Captured({}, {}))
    return ours.rule(Progress(step, 0, step, step), time.monotonic(), event, metrics, None, None, capture)


def test_nothing_is_asked_until_something_can_be_due() -> None:
    """At first and when it is due it is; boundaries in between are remembered all the same."""
    ours = decisions()
    assert not ours.rests(1, 1)
    rule(ours, 1)
    assert [ours.rests(step, step) for step in (2, 9, 10)] == [True, True, False]
    ruling = rule(ours, 10)
    assert ruling.decision.reasons == ("every_steps(10)",)
    assert ruling.past.seen.batches == 9
    assert ours.past == ruling.decision.past


def test_the_state_is_looked_at_before_a_best_value_counts() -> None:
    """And only then."""
    looked: list[int] = []

    def capture() -> Captured:
        looked.append(1)
        return Captured({"w": np.array([1.0, math.nan])}, {})

    ours = decisions()
    assert rule(ours, 1, capture=capture).unhealthy is None
    ruling = rule(ours, 2, Event.VALIDATION_END, capture, loss=0.5)
    assert (ruling.unhealthy, ruling.moment.healthy, ruling.decision.reasons) == ("w is not finite", False, ())
    assert dict(ours.past.best) == {}
    assert looked == [1]
    rule(ours, 3, Event.VALIDATION_END, loss=0.5)
    rule(ours, 4, Event.VALIDATION_END, capture, loss=0.6)
    assert looked == [1]


@pytest.mark.parametrize(
    ("loss", "metrics", "why"),
    [(0.1, {"loss": math.inf}, "loss is inf"), (math.nan, {}, "the loss of the last step is nan"), (0.1, {}, None)],
)
def test_what_is_no_number_is_named(loss: float, metrics: dict[str, float], why: str | None) -> None:
    """The metrics that count, and the loss of the last step."""
    ours = decisions()
    ours.loss = loss
    assert rule(ours, 1, Event.VALIDATION_END, **metrics).unhealthy == why


def test_a_value_whose_snapshot_came_to_nothing_is_forgotten() -> None:
    """The next that is better than what there is counts."""
    ours = decisions()
    rule(ours, 1, Event.VALIDATION_END, loss=0.5)
    ours.forget([{"loss": 0.5}], [])
    assert rule(ours, 2, Event.VALIDATION_END, loss=0.7).decision.reasons == ("best loss 0.7",)


def test_time_before_training_goes_on_is_no_time_of_training() -> None:
    """A past that is carried on has its own."""
    ours = decisions()
    ours.carry_on(Past().passed(5, 5, 1000.0))
    assert 1000 <= rule(ours, 6).moment.elapsed < 1010


def test_a_state_is_in_reserve_only_if_an_exception_would_save_it() -> None:
    """It is the ruling that an exception would bring about here; one that can't be held is not asked for again."""
    ours = decisions(every_steps(10))
    ours.keep_reserve(0)
    assert ours.in_reserve(rule(ours, 1), busy=False) is None
    ours = decisions()
    ours.keep_reserve(0)
    failed = ours.in_reserve(rule(ours, 1), busy=False)
    assert failed is not None
    assert failed.decision.reasons == ("exception",)
    ours.hold_no_more()
    assert ours.in_reserve(rule(ours, 2), busy=False) is None
