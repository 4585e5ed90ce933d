"""A metric that never appears is noticed in the first epoch."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ckpt_callbacks import (
    ConfigurationError,
    Event,
    Moment,
    Monitor,
    Progress,
    every_epochs,
    on_best,
    on_end,
    on_exception,
    on_signal,
    when,
)
from ckpt_callbacks.engine import Past, Trigger, Watch

WRONG = Monitor("val_lss", "min")
OF_EPOCH = Monitor("lss", "min")
VALIDATED, ENDED = Event.VALIDATION_END, Event.VALIDATION_END | Event.EPOCH_END


def watch(trigger: Trigger | None = None, past: Past | None = None, **options: bool) -> Watch:
    return Watch([WRONG], every_epochs(1) if trigger is None else trigger, past or Past(), **options)


def moment(events: Event, **metrics: float) -> Moment:
    return Moment(Progress(), events=events, metrics=metrics)


def asked(trigger: Trigger, *moments: Moment) -> list[str]:
    """What is told at the last of these moments, the trigger having been asked at each."""
    one, told = Watch([], trigger, Past()), list[str]()
    for now in moments:
        told = one.see(now, trigger.ask(now, Past())[1])
    return told


def test_a_misspelled_name_is_told_after_the_first_validation() -> None:
    """Once, with what was meant."""
    one = watch()
    (sentence,) = one.see(moment(VALIDATED, val_loss=1.0, val_acc=0.5))
    assert "'val_lss' was not measured" in sentence
    assert "'val_acc', 'val_loss'" in sentence
    assert "Did you mean 'val_loss'?" in sentence
    assert one.see(moment(ENDED, val_loss=1.0)) == []


def test_a_metric_of_validation_that_is_like_no_other_is_told_after_the_first_one() -> None:
    """Though others may come at the epoch's end, this one would have come."""
    one = watch()
    assert one.see(moment(Event.SIGNAL, accuracy=0.5)) == []
    (sentence,) = one.see(moment(VALIDATED, accuracy=0.5))
    assert "'val_lss' was not measured; measured was: 'accuracy'." in sentence
    assert one.see(moment(ENDED, accuracy=0.5)) == []


def test_a_metric_of_the_epoch_is_awaited() -> None:
    """In the middle of an epoch, a name that is like no other may still come."""
    one = Watch([OF_EPOCH], every_epochs(1), Past())
    assert one.see(moment(VALIDATED, accuracy=0.5)) == []
    assert "was not measured" in one.see(moment(ENDED, accuracy=0.5))[0]


def test_what_is_measured_is_not_spoken_of() -> None:
    """Nor what was measured before a resume."""
    assert watch().see(moment(ENDED, val_lss=1.0)) == []
    assert watch(past=Past(best={WRONG.key: 1.0})).see(moment(ENDED, other=1.0)) == []


@pytest.mark.parametrize("trigger", [on_best(WRONG), on_best(WRONG) & every_epochs(1), on_best(WRONG) | on_best(WRONG)])
def test_if_nothing_would_ever_be_saved_it_is_an_error(trigger: Trigger) -> None:
    """At the end of the first epoch, not at the end of the training."""
    one = watch(trigger)
    assert len(one.see(moment(VALIDATED, accuracy=0.5))) == 1
    with pytest.raises(ConfigurationError, match=r"val_lss.*measured was: 'accuracy'.*no snapshot would ever be taken"):
        one.see(moment(ENDED, accuracy=0.5))


@pytest.mark.parametrize("trigger", [on_best(WRONG) | on_end(), every_epochs(3)])
def test_it_is_none_if_something_else_saves(trigger: Trigger) -> None:
    """A warning then."""
    assert watch(trigger).see(moment(ENDED, loss=0.5))


def test_an_epoch_without_a_validation_says_nothing_yet() -> None:
    """`check_val_every_n_epoch=5`: the metric comes in the fifth epoch. Without any validation at all it never will."""
    one = watch(on_best(WRONG))
    assert one.see(moment(Event.EPOCH_END, loss=0.5)) == []
    with pytest.raises(ConfigurationError):
        watch(on_best(WRONG), validates=False).see(moment(Event.EPOCH_END, loss=0.5))


def test_what_a_function_looks_up_is_watched_too() -> None:
    """``when(lambda m: m.metrics["val_los"] < 1)`` is silent for ever otherwise."""
    misspelled = when(lambda m: m.metrics["val_los"] < 1)
    (sentence,) = asked(misspelled | every_epochs(1), moment(ENDED, val_loss=0.5))
    assert "Did you mean 'val_loss'?" in sentence
    with pytest.raises(ConfigurationError, match=r"Did you mean 'val_loss'.*no snapshot would ever be taken"):
        asked(misspelled, moment(ENDED, val_loss=0.5))
    assert asked(when(lambda m: m.metrics["val_loss"] < 1), moment(ENDED, val_loss=0.5)) == []


@pytest.mark.parametrize(
    "predicate",
    [
        lambda m: m.metrics.get("val_ac", 0) > 0,
        lambda m: "val_ac" in m.metrics,
        lambda m: "val_ac" in m.metrics and m.metrics["val_ac"] > 0,
        lambda m: "val_ac" in m.metrics or m.metrics.get("val_a") is not None,
    ],
)
def test_however_a_function_looks_it_up(predicate: Callable[[Moment], bool]) -> None:
    """`get` and `in` raise nothing, and are silent for ever otherwise. A right name is not spoken of."""
    told = asked(when(predicate) | every_epochs(1), moment(VALIDATED, val_acc=0.5))
    assert any("'val_ac' was not measured" in sentence and "'val_acc'?" in sentence for sentence in told)
    with pytest.raises(ConfigurationError, match="no snapshot would ever be taken"):
        asked(when(predicate), moment(ENDED, val_acc=0.5))
    assert asked(when(predicate), moment(ENDED, val_ac=0.5, val_a=0.5)) == []


def test_what_fires_without_a_metric_is_no_error() -> None:
    """However it looks at what it looks at."""
    for may in (
        lambda m: m.metrics.get("typo", 0) > 0 or m.progress.step >= 0,
        lambda m: m.metrics.get("typo") is not None or any(value < 1 for value in m.metrics.values()),
        lambda m: m.metrics.get("typo") is not None or len(m.metrics) > 0,
        lambda m: m.metrics and m.metrics.get("loss", 0) > m.metrics.get("typo", 0),
        lambda m: "typo" not in m.metrics,
    ):
        assert len(asked(when(may), moment(ENDED, loss=0.5))) == 1


def test_at_the_end_at_the_latest() -> None:
    """`check_val_every_n_epoch=10` in a fit of three epochs."""
    one = watch(on_best(WRONG))
    assert one.see(moment(Event.EPOCH_END, loss=0.5)) == []
    assert one.see(moment(Event.FIT_END, loss=0.5))


def test_signals_and_exceptions_are_nothing_to_rely_on() -> None:
    """They may never come."""
    with pytest.raises(ConfigurationError):
        watch(on_best(WRONG) | on_signal() | on_exception()).see(moment(ENDED, loss=0.5))


def test_what_was_measured_before_anything_was_looked_for_counts() -> None:
    """A function is asked what it looks up when an epoch ends; its metric may have come earlier."""
    trigger = when(lambda m: m.metrics["val_loss"] < 1)
    assert asked(trigger, moment(VALIDATED, val_loss=0.5), moment(Event.EPOCH_END, train_loss=0.5)) == []


def test_a_metric_that_is_asked_for_later_is_watched_too() -> None:
    """As long as the first part of a condition is false, nobody knows of the second."""
    trigger = when(lambda m: m.metrics["loss"] < 1 and m.metrics["vl_acc"] > 0)
    early, late = moment(ENDED, loss=2.0, val_acc=0.5), moment(ENDED, loss=0.5, val_acc=0.5)
    assert asked(trigger, early) == []
    (sentence,) = asked(trigger, early, late)
    assert "'vl_acc' was not measured" in sentence
    assert "Did you mean 'val_acc'?" in sentence


def test_a_function_is_not_asked_at_each_epoch_whether_it_could_fire() -> None:
    """Once is enough for the same metrics."""
    calls: list[object] = []
    trigger = when(lambda m: calls.append(m) or True)  # type: ignore[func-returns-value]
    one = watch(trigger)
    for _ in range(4):
        one.see(moment(ENDED, loss=0.5))
    assert len(calls) == 1


@pytest.mark.parametrize("trigger", [on_exception(), on_signal() | on_exception(), on_signal() & every_epochs(1)])
def test_a_fit_in_which_nothing_would_be_saved_is_told_before(trigger: Trigger) -> None:
    """With what to add."""
    (sentence,) = watch(trigger).start()
    assert repr(trigger) in sentence
    assert trigger.words in sentence
    assert "Add such as every_epochs(1)" in sentence


@pytest.mark.parametrize("trigger", [on_end() | on_exception(), when(lambda m: next(iter(()))), on_best(WRONG)])
def test_a_fit_in_which_something_may_be_saved_is_not_spoken_of(trigger: Trigger) -> None:
    """Functions of the user's are not asked for that."""
    assert watch(trigger).start() == []
