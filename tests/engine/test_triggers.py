"""When to save: each trigger, and how they are joined."""

from __future__ import annotations

import copy
import datetime
import functools
import itertools
import math
import pickle
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ckpt_callbacks
from ckpt_callbacks import (
    ConfigurationError,
    Event,
    Moment,
    Monitor,
    Progress,
    every,
    every_batches,
    every_epochs,
    every_steps,
    on_best,
    on_end,
    on_exception,
    on_signal,
    when,
)
from ckpt_callbacks.engine import Past, Trigger, decide, resolve_triggers
from tests.engine.strategies import counts, late_in_the_epoch, moments, pasts, plain_triggers, run, triggers
from tests.ids import stable

LOSS = Monitor("val_loss")
PERIODIC = [(every_steps, "step"), (every_batches, "batches"), (every_epochs, "epoch")]

observed = st.lists(st.integers(0, 200), min_size=1, max_size=8).map(sorted)


def at(**counts: int) -> Moment:
    """A quiet moment there."""
    return Moment(Progress(**counts))


def measured(**metrics: Any) -> Moment:
    """A moment at which these were measured."""
    return Moment(Progress(step=1), metrics=metrics)


def fires(trigger: Trigger, moment: Moment, past: Past | None = None) -> bool:
    """Whether it gives any reason."""
    return bool(trigger(moment, past or Past()))


# Periodic -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("make", "count"), PERIODIC)
@given(n=counts, seen=observed)
def test_fires_iff_a_multiple_was_reached_or_passed(
    make: Callable[[int], Trigger], count: str, n: int, seen: list[int]
) -> None:
    """However coarsely one looks, a multiple of n in (before, now] is noticed once, and nothing else is."""
    reasons, _ = run([at(**{count: now}) for now in seen], make(n))
    for before, now, why in zip([0, *seen], seen, reasons, strict=False):
        assert bool(why) == any(number % n == 0 for number in range(before + 1, now + 1))


@pytest.mark.parametrize(("make", "count"), PERIODIC)
@given(n=counts, first=st.integers(0, 50), second=st.integers(0, 50))
def test_looking_less_often_misses_nothing(
    make: Callable[[int], Trigger], count: str, n: int, first: int, second: int
) -> None:
    """Passing over a moment fires at the next one iff either would have fired."""
    middle, last = at(**{count: first}), at(**{count: first + second})
    fine, _ = run([middle, last], make(n))
    coarse, _ = run([last], make(n))
    assert bool(coarse[0]) == any(fine)


@given(st.floats(0.001, 1e6), st.lists(st.floats(0, 1e6), min_size=1, max_size=8).map(sorted))
def test_an_interval_fires_iff_a_multiple_was_reached_or_passed(seconds: float, seen: list[float]) -> None:
    """The same law for time, exactly: no drift, whatever the floats."""
    reasons, _ = run([Moment(Progress(), elapsed=now) for now in seen], every(seconds))
    for before, now, why in zip([0.0, *seen], seen, reasons, strict=False):
        passed = [math.floor(Fraction(elapsed) / Fraction(seconds)) for elapsed in (before, now)]
        assert bool(why) == (passed[1] > passed[0])


@pytest.mark.parametrize("trigger", [every_steps(1), every_batches(1), every_epochs(1), every(1)], ids=stable)
def test_nothing_periodic_fires_at_zero(trigger: Trigger) -> None:
    """A run that did nothing yet has nothing to save, though 0 is a multiple of everything."""
    assert not fires(trigger, Moment(Progress()))
    assert fires(trigger, Moment(Progress(step=1, epoch=1, batches=1), elapsed=1.0))


def test_each_looks_at_its_own_count() -> None:
    """Optimizer steps, batches of the whole run, epochs; the batch within the epoch matters to none."""
    assert fires(every_steps(2), at(step=2, epoch=1, batches=1))
    assert fires(every_batches(2), at(step=1, epoch=1, batches=2))
    assert fires(every_epochs(2), at(step=1, epoch=2, batches=1))
    assert not fires(every_steps(2) | every_batches(2) | every_epochs(2), at(step=1, epoch=1, batch=2, batches=1))


@pytest.mark.parametrize(
    ("interval", "seconds"),
    [
        *[("30m", 1800), ("1h30m", 5400), ("90s", 90), ("2d", 172800), ("0.5h", 1800), ("1 h 30 M", 5400)],
        *[(90, 90), (0.5, 0.5), (datetime.timedelta(minutes=30), 1800)],
    ],
)
def test_ways_to_say_an_interval(interval: Any, seconds: float) -> None:
    """A string with units, seconds, or a timedelta."""
    assert not fires(every(interval), Moment(Progress(), elapsed=math.nextafter(seconds, 0)))
    assert fires(every(interval), Moment(Progress(), elapsed=seconds))


# On occasions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trigger", "event"),
    [(on_end(), Event.FIT_END), (on_exception(), Event.EXCEPTION), (on_signal(), Event.SIGNAL)],
    ids=stable,
)
def test_an_occasion_fires_on_its_own_event_only(trigger: Trigger, event: Event) -> None:
    """Alone or among others, and on no other."""
    assert fires(trigger, Moment(Progress(), events=event))
    assert fires(trigger, Moment(Progress(), events=event | Event.MANUAL))
    assert not fires(trigger, Moment(Progress()))
    assert not fires(trigger, Moment(Progress(), events=~event))


def test_when_asks_the_function() -> None:
    """What it is called is the reason."""
    assert when(late_in_the_epoch)(at(batch=4), Past()) == ("when(late_in_the_epoch)",)
    assert not fires(when(late_in_the_epoch), at(batch=3))
    assert when(lambda moment: "val_acc" in moment.metrics)(measured(val_acc=0.9), Past()) == ("when(<lambda>)",)


def test_the_best_is_told_with_what_it_was() -> None:
    """The reason is a sentence for people."""
    assert on_best(LOSS)(measured(val_loss=0.5), Past()) == ("best val_loss 0.5",)
    assert on_best(LOSS)(measured(val_loss=0.25), Past(best={LOSS.key: 0.5})) == ("best val_loss 0.25 (was 0.5)",)


def test_the_best_needs_a_measurement() -> None:
    """Where the metric was not measured, nothing is best; nor where it isn't a finite number, nor on a tie."""
    past = Past(best={LOSS.key: 0.5})
    for metrics in ({}, {"val_acc": 1.0}, {"val_loss": math.nan}, {"val_loss": -math.inf}, {"val_loss": 0.5}):
        assert not fires(on_best("val_loss"), measured(**metrics), past)


# Joined -------------------------------------------------------------------------------------------------------------


@given(triggers, triggers, moments, pasts)
def test_or_joins_the_reasons_of_both(one: Trigger, other: Trigger, moment: Moment, past: Past) -> None:
    """All reasons, in the order they are written."""
    assert (one | other)(moment, past) == one(moment, past) + other(moment, past)


@given(triggers, triggers, moments, pasts)
def test_and_joins_the_reasons_only_when_both_fire(one: Trigger, other: Trigger, moment: Moment, past: Past) -> None:
    """All reasons, or none."""
    first, second = one(moment, past), other(moment, past)
    assert (one & other)(moment, past) == (first + second if first and second else ())


@given(plain_triggers, plain_triggers, plain_triggers)
def test_brackets_do_not_matter_to_a_chain(one: Trigger, two: Trigger, three: Trigger) -> None:
    """``|`` and ``&`` are associative, and the chain is flat."""
    assert (one | two) | three == one | (two | three)
    assert (one & two) & three == one & (two & three)
    assert hash((one | two) | three) == hash(one | (two | three))


def test_and_asks_the_second_only_if_the_first_fires() -> None:
    """So the second may rely on the first: here, that the metric was measured."""
    good = on_best(LOSS) & (lambda moment: moment.metrics["val_loss"] < 0.1)
    assert not fires(good, measured(val_acc=0.9))
    assert not fires(good, measured(val_loss=0.2))
    assert fires(good, measured(val_loss=0.05))


@pytest.mark.parametrize("moment", [at(step=2, batch=9), at(step=2), at(step=1, batch=9), at(step=1)])
def test_a_plain_function_joins_from_either_side(moment: Moment) -> None:
    """It needs no ``when(...)`` around it."""
    steps, late = every_steps(2), when(late_in_the_epoch)
    for plain, full in [
        (steps | late_in_the_epoch, steps | late),
        (late_in_the_epoch | steps, late | steps),
        (steps & late_in_the_epoch, steps & late),
        (late_in_the_epoch & steps, late & steps),
    ]:
        assert plain == full
        assert plain(moment, Past()) == full(moment, Past())


# Written ------------------------------------------------------------------------------------------------------------

NAMES = {**vars(ckpt_callbacks), "datetime": datetime, "late_in_the_epoch": late_in_the_epoch}


@given(triggers)
def test_the_repr_is_the_expression_that_makes_it(trigger: Trigger) -> None:
    """Evaluated and bound, it gives an equal trigger; so what is logged can be pasted into a program."""
    again, bound = eval(repr(trigger), dict(NAMES)).bind([LOSS]), trigger.bind([LOSS])
    assert again == bound
    assert hash(again) == hash(bound)


@pytest.mark.parametrize(
    "written",
    [
        *("every_steps(100)", "every_batches(7)", "every_epochs(1)", "every('30m')", "every(1.5)"),
        *("on_best()", "on_best('val_loss')", "on_best(Monitor('foo', 'min'))", "on_best(Monitor('val_acc', 'min'))"),
        *("on_end()", "on_exception()", "on_signal()", "when(late_in_the_epoch)"),
        "(every_steps(2) | (on_best() & every_epochs(2)) | on_end())",
    ],
)
def test_what_is_written_is_what_is_shown(written: str) -> None:
    """The shortest form, with nothing left out that matters."""
    assert repr(eval(written, dict(NAMES))) == written


@given(plain_triggers)
def test_a_trigger_is_copied_and_pickled(trigger: Trigger) -> None:
    """Frameworks copy callbacks, and send them to other processes."""
    assert copy.deepcopy(trigger) == pickle.loads(pickle.dumps(trigger)) == trigger  # noqa: S301


# Bound --------------------------------------------------------------------------------------------------------------


def test_bind_fills_in_the_first_monitor_wherever_one_is_open() -> None:
    """Also deep inside; a monitor of its own stays."""
    trigger = on_end() | (on_best() & every_epochs(2)) | on_best("val_acc")
    bound = trigger.bind([LOSS, Monitor("foo", "max")])
    assert bound == on_end() | (on_best(LOSS) & every_epochs(2)) | on_best(Monitor("val_acc"))
    assert bound.monitors == (LOSS, Monitor("val_acc"))


def test_an_open_monitor_without_any_to_fill_it_is_refused() -> None:
    """When it is bound - which is when the callback is made - with both ways out."""
    with pytest.raises(ConfigurationError, match=r"needs a metric: pass monitor= .* or on_best\('val_loss'\)"):
        (on_end() | (on_best() & every_epochs(2))).bind([])


def test_an_unbound_trigger_is_not_asked() -> None:
    """It says that it has no metric, rather than that nothing was best."""
    with pytest.raises(ConfigurationError, match="needs a metric"):
        on_best()(measured(val_loss=1.0), Past())


@given(plain_triggers)
def test_bind_leaves_alone_what_is_not_open(trigger: Trigger) -> None:
    """Binding twice is binding once."""
    bound = trigger.bind([])
    assert bound.bind([Monitor("foo", "max")]) == bound


# save= --------------------------------------------------------------------------------------------------------------


def test_the_default() -> None:
    """Every epoch, on best if there is a monitor, at the end, on an exception and on a signal."""
    occasions = on_end() | on_exception() | on_signal()
    assert resolve_triggers(None, []) == every_epochs(1) | occasions
    assert resolve_triggers(None, [LOSS]) == every_epochs(1) | on_best(LOSS) | occasions


def test_what_the_user_gives_as_save() -> None:
    """A trigger, a function, or several of both: any of them fires."""
    assert resolve_triggers(on_best(), [LOSS]) == on_best(LOSS)
    assert resolve_triggers(late_in_the_epoch, []) == when(late_in_the_epoch)
    assert resolve_triggers([on_best()], [LOSS]) == on_best(LOSS)
    assert resolve_triggers((t for t in (on_end(), on_best())), [LOSS]) == on_end() | on_best(LOSS)
    assert resolve_triggers([every_steps(2), late_in_the_epoch], []) == every_steps(2) | late_in_the_epoch


class Odd(Trigger):
    """Fires at odd steps."""

    def __call__(self, moment: Moment, past: Past) -> tuple[str, ...]:
        return ("odd",) if moment.progress.step % 2 else ()


def test_a_trigger_of_ones_own_is_a_subclass() -> None:
    """It joins, binds and fires like the others; one that forgot to say when is told so."""
    trigger = resolve_triggers(Odd() & every_steps(3), [])
    assert fires(trigger, at(step=3))
    assert not fires(trigger, at(step=6), Past(seen=Progress(step=3)))
    with pytest.raises(TypeError, match="must define __call__"):
        Trigger()(at(step=1), Past())


def test_a_reason_holds_no_address() -> None:
    """Two runs of one script write the same manifests, also with a function that has no name."""
    nameless = functools.partial(lambda answer, moment: answer, True)
    assert when(nameless)(at(step=1), Past()) == ("when(partial)",)


def test_equal_spans_of_time_are_equal_triggers() -> None:
    """However they are written: equality is by what a trigger does."""
    assert every("90m") == every("1h30m") == every(5400) == every(datetime.timedelta(minutes=90))
    assert len({every("90m"), every(5400)}) == 1


def test_or_and_and_are_not_silently_one_of_both() -> None:
    """``a or b`` would be a alone; the user would learn of it when the save that b should have made is missing."""
    with pytest.raises(ConfigurationError, match=r"join triggers with \| and &"):
        every_epochs(1) or on_end()
    with pytest.raises(ConfigurationError, match=r"join triggers with \| and &"):
        every_epochs(1) and on_end()


def test_only_finite_bests_come_back() -> None:
    """A manifest writes NaN as a string: it must neither crash the next comparison nor win it."""
    plain = {**Past().as_dict(), "best": {"val_loss:min": "nan", "val_acc:max": 1}}
    assert Past.from_dict(plain).best == {"val_acc:max": 1.0}


def test_no_past_is_the_beginning() -> None:
    """A snapshot that another program wrote need not know what decisions remember."""
    assert Past.from_dict({}) == Past()


def test_a_name_means_the_checkpointers_own_monitor_of_that_name():
    """`monitor="x_score", mode="min"` holds for `on_best("x_score")` too."""
    own = Monitor("x_score", "min")
    assert on_best("x_score").bind([LOSS, own]) == on_best(own)
    assert on_best("foo").bind([Monitor("foo", "max")]) == on_best(Monitor("foo", "max"))


def test_a_function_that_asks_for_a_metric_first_can_not_fire_without_it() -> None:
    """One that looks at anything else before it may."""
    assert not when(lambda m: m.metrics["typo"] < 1).can_fire({"typo"})
    assert when(lambda m: m.metrics["typo"] < 1).can_fire({"other"})
    for may in (
        lambda m: m.progress.step > 3 or m.metrics["typo"] < 1,
        lambda m: m.metrics.get("typo", 0) < 1,
        lambda m: m.metrics["loss"] < 1 or m.metrics["typo"] < 1,
    ):
        assert when(may).can_fire({"typo"})


def test_functions_are_called_once_for_reasons_and_for_what_they_lack() -> None:
    """One that counts fires as often as it should; after a part that does not fire it is not asked."""
    count = itertools.count(1)
    trigger = every_steps(1) & when(lambda m: next(count) % 2 == 0) | when(lambda m: m.metrics.get("a", 1) < 0)
    past, fired = Past(), []
    for step in range(1, 7):
        decision = decide(Moment(Progress(step), metrics={"loss": 1.0}), past, trigger)
        past = decision.past
        fired.append(bool(decision.reasons))
        assert decision.lacks == {"a"}
    assert fired == [False, True] * 3


def test_sentences_are_the_parts_that_fire_on_their_own() -> None:
    """Each part's words stay whole, whatever signs are in them."""

    class Odd(Trigger):
        words = "now; or later"

    trigger = every_steps(2) | Odd() | (Odd() & on_end())
    assert trigger.sentences == (
        *("every 2 optimizer steps", "now; or later"),
        "now; or later, but only when training ends",
    )
    assert trigger.words == "; ".join(trigger.sentences)
    assert on_end().sentences == ("when training ends",)
