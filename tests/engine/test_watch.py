"""A metric that never appears is noticed in the first epoch."""

from __future__ import annotations

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
VALIDATED, ENDED = Event.VALIDATION_END, Event.VALIDATION_END | Event.EPOCH_END


def watch(trigger: Trigger | None = None, past: Past | None = None, **options: bool) -> Watch:
    return Watch([WRONG], every_epochs(1) if trigger is None else trigger, past or Past(), **options)


def moment(events: Event, **metrics: float) -> Moment:
    return Moment(Progress(), events=events, metrics=metrics)


def test_a_misspelled_name_is_told_after_the_first_validation() -> None:
    """Once, with what was meant."""
    one = watch()
    (sentence,) = one.see(moment(VALIDATED, val_loss=1.0, val_acc=0.5))
    assert "'val_lss' was not measured" in sentence
    assert "'val_acc', 'val_loss'" in sentence
    assert "Did you mean 'val_loss'?" in sentence
    assert one.see(moment(ENDED, val_loss=1.0)) == []


def test_a_metric_of_the_epoch_is_awaited() -> None:
    """In the middle of an epoch, a name that is like no other may still come."""
    one = watch()
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
    assert one.see(moment(VALIDATED, accuracy=0.5)) == []
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
    (sentence,) = Watch([], misspelled | every_epochs(1), Past()).see(moment(ENDED, val_loss=0.5))
    assert "Did you mean 'val_loss'?" in sentence
    with pytest.raises(ConfigurationError, match=r"Did you mean 'val_loss'.*no snapshot would ever be taken"):
        Watch([], misspelled, Past()).see(moment(ENDED, val_loss=0.5))
    assert Watch([], when(lambda m: m.metrics["val_loss"] < 1), Past()).see(moment(ENDED, val_loss=0.5)) == []


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
    one = Watch([], when(lambda m: m.metrics["val_loss"] < 1), Past())
    assert one.see(moment(VALIDATED, val_loss=0.5)) == []
    assert one.see(moment(Event.EPOCH_END, train_loss=0.5)) == []


def test_a_metric_that_is_asked_for_later_is_watched_too() -> None:
    """As long as the first part of a condition is false, nobody knows of the second."""
    one = Watch([], when(lambda m: m.metrics["loss"] < 1 and m.metrics["vl_acc"] > 0), Past())
    assert one.see(moment(ENDED, loss=2.0, val_acc=0.5)) == []
    (sentence,) = one.see(moment(ENDED, loss=0.5, val_acc=0.5))
    assert "'vl_acc' was not measured" in sentence
    assert "Did you mean 'val_acc'?" in sentence
