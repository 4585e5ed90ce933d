"""One function from a moment and the past to the reasons for a snapshot, and the new past."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckpt_callbacks import (
    ConfigurationError,
    Event,
    Moment,
    Monitor,
    Progress,
    every,
    every_epochs,
    every_steps,
    on_best,
    on_end,
)
from ckpt_callbacks.engine import Past, Trigger, decide, resolve_triggers
from tests.engine.strategies import monitors, run, triggers, values, walks

LOSS, ACC = Monitor("val_loss"), Monitor("val_acc")


def stored(past: Past) -> Past:
    """What comes back of a past that a snapshot took along."""
    return Past.from_dict(json.loads(json.dumps(past.as_dict(), allow_nan=False)))


def measured(step: int = 1, **metrics: Any) -> Moment:
    """A moment at which these were measured."""
    return Moment(Progress(step=step), float(step), metrics=metrics)


# Resume -------------------------------------------------------------------------------------------------------------


@given(walks, st.integers(0, 12), triggers | st.none(), st.lists(monitors, max_size=2))
def test_a_resumed_run_decides_as_the_uninterrupted_one(
    moments: list[Moment], cut: int, trigger: Trigger | None, monitors: list[Monitor]
) -> None:
    """Cut anywhere, and go on with the past that was stored there: the same reasons at every later moment."""
    resolved = resolve_triggers(trigger, monitors)
    reasons, pasts = run(moments, resolved, monitors)
    cut = min(cut, len(moments))
    assert run(moments[cut:], resolved, monitors, stored(pasts[cut])) == (reasons[cut:], pasts[cut:])


@given(st.lists(values, min_size=1), values, st.sampled_from([LOSS, ACC]))
def test_after_a_resume_a_worse_value_is_never_best(before: list[float], after: float, monitor: Monitor) -> None:
    """What is best was learned before the crash, and is not learned anew."""
    _, pasts = run([measured(step, **{monitor.metric: value}) for step, value in enumerate(before)], on_best(monitor))
    decision = decide(measured(99, **{monitor.metric: after}), stored(pasts[-1]), on_best(monitor))
    finite = [value for value in before if math.isfinite(value)]
    beats_all = math.isfinite(after) and all(monitor.better(after, value) for value in finite)
    assert bool(decision.reasons) == beats_all


@given(walks)
def test_a_moment_that_comes_again_is_no_news(moments: list[Moment]) -> None:
    """The snapshot of a moment remembers that moment: nothing periodic fires a second time, and nothing is best."""
    trigger = every_steps(1) | every_epochs(1) | every(1) | on_best(LOSS)
    _, pasts = run(moments, trigger)
    for moment, past in zip(moments, pasts[1:], strict=True):
        assert trigger(moment, past) == ()


# What is folded -----------------------------------------------------------------------------------------------------


def test_the_past_is_folded_even_when_nothing_fires() -> None:
    """Where training stood, how long it had run, and what was best: remembered without any snapshot."""
    decision = decide(measured(7, val_loss=0.5), Past(), on_end(), [LOSS])
    assert decision.reasons == ()
    assert decision.past == Past(Progress(step=7), 7.0, {"val_loss:min": 0.5})


@given(walks, triggers, monitors)
def test_what_is_best_only_gets_better(moments: list[Moment], trigger: Trigger, monitor: Monitor) -> None:
    """And it is always a number that was measured, never NaN or infinite."""
    _, pasts = run(moments, trigger, [monitor])
    bests = [past.best.get(monitor.key) for past in pasts]
    seen = {moment.metrics.get(monitor.metric) for moment in moments}
    for before, after in pairwise(bests):
        assert after == before or (after is not None and after in seen and monitor.improves(after, before))


@given(walks, triggers, triggers)
def test_triggers_do_not_disturb_each_other(moments: list[Moment], one: Trigger, other: Trigger) -> None:
    """Each fires beside others exactly when it fires alone, also if both watch one metric, each with its min_delta."""
    first, _ = run(moments, one)
    second, _ = run(moments, other)
    together, _ = run(moments, one | other)
    assert [set(why) for why in together] == [set(one) | set(two) for one, two in zip(first, second, strict=True)]


def test_slow_progress_adds_up() -> None:
    """Steps smaller than ``min_delta`` count once they have added up, whatever else watches the same metric."""
    trigger = on_best(Monitor("val_loss", min_delta=0.1))
    moments = [measured(step, val_loss=1.0 - 0.0625 * step) for step in range(5)]
    reasons, _ = run(moments, trigger, [LOSS])
    assert [bool(why) for why in reasons] == [True, False, True, False, True]


@given(walks, triggers)
def test_deciding_changes_nothing_but_what_it_returns(moments: list[Moment], trigger: Trigger) -> None:
    """The same question has the same answer, and the past that was handed over is still what it was."""
    past = Past()
    for moment in moments:
        before = stored(past)
        decision = decide(moment, past, trigger, [LOSS])
        assert decision == decide(moment, past, trigger, [LOSS])
        assert past == before
        past = decision.past


# Reasons ------------------------------------------------------------------------------------------------------------


def test_a_manual_request_always_saves() -> None:
    """Whatever the trigger says; with what the user wrote beside it."""
    asked = Moment(Progress(step=3), events=Event.MANUAL)
    assert decide(asked, Past(), on_end()).reasons == ("manual",)
    noted = Moment(Progress(step=3), events=Event.MANUAL, note="before the merge")
    assert decide(noted, Past(), on_end()).reasons == ("manual: before the merge",)
    assert decide(noted, Past(), every_steps(3)).reasons == ("every_steps(3)", "manual: before the merge")


def test_a_note_without_a_request_saves_nothing() -> None:
    """Only the event asks."""
    assert decide(Moment(Progress(step=3), note="hm"), Past(), on_end()).reasons == ()


def test_each_reason_is_told_once() -> None:
    """Though two branches of the trigger give it."""
    trigger = (on_best(LOSS) & every_steps(3)) | on_best(LOSS)
    assert decide(measured(3, val_loss=0.5), Past(), trigger).reasons == ("best val_loss 0.5", "every_steps(3)")


def test_a_monitored_metric_that_is_no_number_is_named() -> None:
    """Only a monitored one: users log all kinds of things."""
    moment = measured(1, val_loss=[1.0, 2.0], picture=b"\x89PNG")
    assert decide(moment, Past(), on_end()).reasons == ()
    with pytest.raises(ConfigurationError, match="val_loss is a list that is no single number"):
        decide(moment, Past(), on_best(LOSS))


def test_a_run_that_is_killed_twice() -> None:
    """The whole of it: two crashes, each back to the newest snapshot, and no snapshot too many or too few."""
    losses = {10: 0.9, 20: 0.5, 30: math.nan, 40: 0.7, 50: 0.4, 60: 0.4}
    moments = [
        Moment(Progress(step, step // 10), metrics={"val_loss": losses[step]} if step in losses else {})
        for step in range(1, 61)
    ]
    trigger = resolve_triggers([every_steps(25), on_best()], [LOSS])
    saved: dict[int, tuple[tuple[str, ...], dict[str, Any]]] = {}
    for killed_at in (23, 47, 60):
        begin = max(saved, default=0)
        past = Past.from_dict(saved[begin][1]) if saved else Past()
        for moment in moments[begin:killed_at]:
            decision = decide(moment, past, trigger, [LOSS])
            past = decision.past
            if decision.reasons:
                assert moment.progress.step not in saved
                saved[moment.progress.step] = (decision.reasons, past.as_dict())
    assert {step: reasons for step, (reasons, _) in saved.items()} == {
        10: ("best val_loss 0.9",),
        20: ("best val_loss 0.5 (was 0.9)",),
        25: ("every_steps(25)",),
        50: ("every_steps(25)", "best val_loss 0.4 (was 0.5)"),
    }


def test_what_is_not_healthy_is_no_best() -> None:
    """A good value beside a loss that is NaN must not stand in the way of later ones."""
    loss = Monitor("val_loss")
    sick = Moment(Progress(1), metrics={"val_loss": 0.1}, healthy=False)
    well = Moment(Progress(2), metrics={"val_loss": 0.2})
    reasons, pasts = run([sick, well], on_best(loss), [loss])
    assert reasons == [(), ("best val_loss 0.2",)]
    assert pasts[-1].best == {loss.key: 0.2}
