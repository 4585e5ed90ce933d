"""How long nothing can be due: moments in between need not be decided, and nothing is decided otherwise for it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckpt_callbacks import (
    Moment,
    Monitor,
    Progress,
    every,
    every_batches,
    every_epochs,
    every_steps,
    on_best,
    on_end,
    when,
)
from ckpt_callbacks.engine import Event, Past, Rest, Trigger, decide, resolve_triggers
from ckpt_callbacks.engine.rest import NONE
from tests.engine.strategies import monitors, run, triggers, walks

MOMENT = Moment(Progress(step=7, epoch=1, batch=3, batches=17), elapsed=100.0)


@pytest.mark.parametrize(
    ("trigger", "rest"),
    [
        (every_steps(10), Rest(steps=3)),
        (every_steps(7), Rest(steps=7)),
        (every_batches(5), Rest(batches=3)),
        (every("30s"), Rest(seconds=20.0)),
        (every_epochs(2), Rest()),
        (on_best("val_loss") | on_end(), Rest()),
        (every_steps(10) | every("30s") | every_steps(8), Rest(steps=1, seconds=20.0)),
        (every_steps(10) & when(lambda moment: True), Rest(steps=3)),
        (when(lambda moment: True), NONE),
        (when(lambda moment: True) | every_steps(10), NONE),
    ],
)
def test_how_long_a_trigger_rests(trigger: Trigger, rest: Rest) -> None:
    """Until its next multiple; a function of the user's is asked at every moment."""
    assert trigger.rest(MOMENT) == rest
    assert decide(MOMENT, Past(), resolve_triggers(trigger, ())).rest == rest


def test_a_trigger_of_another_kind_sees_every_moment() -> None:
    """Who doesn't know better has asked for it."""

    class Third(Trigger):
        def __call__(self, moment: Moment, past: Past) -> tuple[str, ...]:
            return ()

    assert Third().rest(MOMENT) == NONE
    assert Rest(steps=5) & Rest(batches=2) == Rest(5, 2, math.inf)


@given(walks, triggers | st.none(), st.lists(monitors, max_size=2))
def test_what_is_passed_over_changes_no_decision(
    moments: list[Moment], trigger: Trigger | None, monitors: list[Monitor]
) -> None:
    """The same reasons and the same past wherever something is decided, and nothing was due elsewhere."""
    resolved = resolve_triggers(trigger, monitors)
    reasons, pasts = run(moments, resolved, monitors)
    past, until, passed = Past(), (0.0, 0.0, 0.0), None
    for moment, due, after in zip(moments, reasons, pasts[1:], strict=True):
        progress = moment.progress
        quiet = moment.events == Event.NONE and not moment.metrics and progress.epoch == past.seen.epoch
        if quiet and all(
            now < limit for now, limit in zip((progress.step, progress.batches, moment.elapsed), until, strict=True)
        ):
            assert due == ()
            passed = (progress.step, progress.batches, moment.elapsed)
            continue
        decision = decide(moment, past.passed(*passed) if passed else past, resolved, monitors)
        assert (decision.reasons, decision.past) == (due, after)
        past, passed, rest = decision.past, None, decision.rest
        until = (progress.step + rest.steps, progress.batches + rest.batches, moment.elapsed + rest.seconds)
