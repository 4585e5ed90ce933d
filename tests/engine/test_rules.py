"""The rules that thin out, budget and reduce; and what is kept apart from the others."""

from __future__ import annotations

import copy
import math
import pickle
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ckpt_callbacks
from ckpt_callbacks import (
    ConfigurationError,
    Progress,
    every_steps,
    keep_all,
    keep_best,
    keep_last,
    keep_log_spaced,
    keep_tiers,
    keep_within,
    on_best,
    weights_after,
)
from ckpt_callbacks.engine import Record, Rule, best_of, judge, resolve_rules, with_best
from ckpt_callbacks.engine.monitor import Monitor
from tests.engine.strategies import histories, rules

sizes = st.integers(0, 50)


def history(*elapsed: float, size: int = 10) -> list[Record]:
    """Snapshots after so many seconds of training, a step each second."""
    return [
        Record(f"{at:g}", n, Progress(step=int(at)), elapsed=at, size=size) for n, at in enumerate(elapsed, start=1)
    ]


def kept(records: list[Record], *rules: Rule) -> list[str]:
    """The ids that stay, oldest first."""
    return list(judge(records, rules).keep)


# Thinned out --------------------------------------------------------------------------------------------------------


def test_tiers_keep_fewer_the_older_they_are() -> None:
    """One for each of the last three minutes, one for each of the last two times ten minutes."""
    records = history(*range(30, 3600, 30))
    found = kept(records, keep_tiers({"1m": 3, "10m": 2}))
    assert found == ["2970", "3450", "3510", "3570"]


def test_an_interval_without_a_snapshot_does_not_count() -> None:
    """A day in the queue, or a long epoch, costs no snapshot."""
    assert kept(history(100, 200, 9000, 90_000), keep_tiers(hourly=3)) == ["200", "9000", "90000"]


def test_tiers_as_people_say_them() -> None:
    """Hours, days, weeks and months; or whatever length, as in `every`."""
    plain = keep_tiers(hourly=24, daily=7, weekly=4)
    assert plain == keep_tiers() == keep_tiers({"1h": 24, timedelta(days=1): 7, "1w": 4})
    assert repr(plain) == "keep_tiers({'1h': 24, '1d': 7, '1w': 4})"
    assert keep_tiers(monthly=1) == keep_tiers({"30d": 1})


@given(st.lists(st.integers(1, 5000)).map(sorted), st.sampled_from([1.5, 2, 10]))
def test_log_spaced_keeps_the_first_at_or_after_each_power(steps: list[int], base: float) -> None:
    """As many from 1 to 10 as from 1,000 to 10,000."""
    records = [Record(str(n), n, Progress(step)) for n, step in enumerate(steps)]
    wanted = set()
    for power in range(40):
        first, last = math.ceil(base**power), math.ceil(base ** (power + 1))
        wanted.add(next((str(n) for n, step in enumerate(steps) if first <= step < last), None))
    assert set(keep_log_spaced(base)(records)) == wanted - {None}


def test_log_spaced_is_not_misled_by_a_rounded_logarithm() -> None:
    """The third power of this base is a little more than 10, though the logarithm of 10 is 3 sharp."""
    records = [Record(str(step), step, Progress(step)) for step in (10, 11)]
    assert list(keep_log_spaced(10 ** (1 / 3))(records)) == ["10", "11"]


# A budget -----------------------------------------------------------------------------------------------------------


@given(histories, rules, st.lists(sizes, min_size=15, max_size=15), st.integers(1, 200))
def test_a_budget_counts_what_others_keep(records, rules, sizes, budget) -> None:
    """It adds the newest that fit, and never goes beyond it by itself; what others keep is kept in any case."""
    records = [replace(record, size=size) for record, size in zip(records, sizes, strict=False)]
    without = judge(records, rules).keep
    verdict = judge(records, [*rules, keep_within(budget)])
    total = {record.id: record.size for record in records}
    assert without.keys() <= verdict.keep.keys()
    spent = sum(total[id] for id in verdict.keep)
    assert spent <= max(budget, sum(total[id] for id in without))
    assert bool(verdict.exceeded) == (spent > budget)
    added = [record.id for record in records if record.id in verdict.keep.keys() - without.keys()]
    others = [record.id for record in records if record.id not in without]
    assert added == others[len(others) - len(added) :]
    again = judge([record for record in records if record.id in verdict.keep], [*rules, keep_within(budget)])
    assert not again.drop


def test_a_budget_alone_keeps_as_many_as_fit() -> None:
    """The newest ones; one that is larger than the budget is kept all the same, and that is said."""
    records = history(1, 2, 3, 4, size=10)
    assert kept(records, keep_within(25)) == ["3", "4"]
    assert kept(records, keep_within("1 KB")) == ["1", "2", "3", "4"]
    verdict = judge(records, [keep_within(5)])
    assert list(verdict.keep) == ["4"]
    assert "keep_within(5) can't be held: 10 bytes (snapshots: 1) are kept" in verdict.exceeded[0]


# Weights only -------------------------------------------------------------------------------------------------------


def test_older_ones_keep_their_weights() -> None:
    """All that stay but the latest two; never a pin, nor what a resume would begin with."""
    records = history(1, 2, 3, 4, 5)
    records[1] = replace(records[1], pinned=True)
    verdict = judge(records, [keep_all(), weights_after(2)])
    assert verdict.demote == {"1": "weights_after(2)", "3": "weights_after(2)"}
    assert list(verdict.keep) == ["1", "2", "3", "4", "5"]
    assert list(judge(records, [keep_last(1), weights_after(1)]).demote) == []


@given(histories, rules, st.integers(1, 5))
def test_what_is_reduced_stays_and_there_is_always_one_to_resume_from(records, rules, n) -> None:
    """Doing what the verdict says, and judging again, changes nothing more."""
    verdict = judge(records, [*rules, weights_after(n)])
    assert verdict.keep == judge(records, rules).keep
    left = [
        replace(record, content="weights") if record.id in verdict.demote else record
        for record in records
        if record.id in verdict.keep
    ]
    assert any(record.content == "full" for record in left) == any(record.content == "full" for record in records)
    assert not judge(left, [*rules, weights_after(n)]).demote


def test_to_reduce_is_not_to_keep() -> None:
    """Alone it says nothing of which ones stay: that would be a guess."""
    with pytest.raises(ConfigurationError, match=r"expected a list .* \[keep_all\(\), weights_after\(2\)\]"):
        resolve_rules(weights_after(2), [])


# Apart --------------------------------------------------------------------------------------------------------------


def sick(record: Record, **metrics: float) -> Record:
    """The same, with numbers in it that are none."""
    return replace(record, healthy=False, metrics=metrics)


def test_what_is_not_healthy_pushes_out_nothing() -> None:
    """A run that diverges keeps its last healthy snapshots; the first sick one and the newest are there to look at."""
    records = history(1, 2, 3, 4, 5, 6)
    records[3:] = [sick(record) for record in records[3:]]
    verdict = judge(records, [keep_last(2)])
    assert verdict.keep == {
        "2": ("keep_last(2)",),
        "3": ("newest healthy", "keep_last(2)"),
        "4": ("kept apart: the first that is not healthy",),
        "6": ("newest full: needed to resume",),
    }


def test_what_is_not_healthy_is_never_the_best() -> None:
    """However good its metric looks."""
    good, bad = history(1, 2)
    good, bad = replace(good, metrics={"loss": 0.5}), sick(bad, loss=0.1)
    assert best_of([good, bad], Monitor("loss")) == good
    assert judge([good, bad], [keep_best(1, "loss")]).keep["1"] == ("newest healthy", "best loss (rank 1 of 1)")


def test_an_abandoned_line_is_judged_by_itself() -> None:
    """Going back to an older snapshot neither mixes two trainings nor throws one away."""
    records = [replace(record, metrics={"loss": 1 / record.step}) for record in history(10, 20, 30, 40)]
    abandoned = [replace(record, line=1) for record in records[1:]]
    again = replace(records[1], id="again", sequence=9, metrics={"loss": 0.3})
    everything = [records[0], *abandoned, again]
    assert best_of(everything, Monitor("loss")) == records[0]
    assert kept(everything, keep_last(1), keep_best(1, "loss")) == ["10", "40", "again"]


# Written ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "written",
    [
        *("keep_within('20 GB')", "keep_within(1000)", "weights_after(3)", "keep_log_spaced(2)"),
        *("keep_log_spaced(1.5)", "keep_tiers({'10m': 6, '1h': 24})", "keep_tiers({'0.5s': 2})"),
    ],
)
def test_the_repr_is_the_expression_that_makes_it(written: str) -> None:
    """So what is logged can be pasted into a program; and it can be copied and pickled."""
    made = eval(written, vars(ckpt_callbacks))
    assert repr(made) == written
    assert copy.deepcopy(made) == pickle.loads(pickle.dumps(made)) == made  # noqa: S301
    assert made.words


@pytest.mark.parametrize(
    "make",
    [
        *(lambda: keep_within("20 apples"), lambda: keep_within(0), lambda: keep_within(True)),
        *(lambda: keep_log_spaced(1), lambda: keep_log_spaced(math.inf), lambda: keep_log_spaced("2")),
        *(lambda: keep_tiers({}), lambda: keep_tiers({"1 fortnight": 3}), lambda: keep_tiers(hourly=-1)),
        *(lambda: weights_after(0), lambda: keep_last(1 << 63), lambda: keep_log_spaced(1e200)),
        *(lambda: keep_log_spaced(1 + 1e-15), lambda: keep_best(1, Monitor("x", "min", 10**400))),
        lambda: resolve_rules([keep_last(2)] * 101, ()),
    ],
)
def test_what_can_not_work_is_refused_where_it_is_given(make) -> None:
    """With what was expected instead."""
    with pytest.raises(ConfigurationError, match="expected"):
        make()


@pytest.mark.parametrize(
    "rule",
    [keep_log_spaced(1e6), keep_log_spaced(1.0001), keep_tiers({5e-324: 3, 1e300: 2}), keep_last((1 << 63) - 1)],
)
def test_what_can_be_given_can_be_judged(rule: Rule) -> None:
    """At the end of what can be given, and of what a snapshot may say."""
    records = [
        Record(f"{step}", step, Progress(step=step), elapsed=at) for step, at in ((1, 0.0), ((1 << 53) - 1, 1e308))
    ]
    assert len(judge(records, [rule]).keep) == 2
    assert rule.words


def test_ten_thousand_snapshots_are_judged_at_once() -> None:
    """Every rule looks at each record some times, not at each pair. (How long that takes stands in the benchmarks.)"""
    records = [replace(record, metrics={"loss": 1.0}) for record in history(*range(1, 10_001))]
    every = [keep_last(5), keep_best(3, "loss"), keep_tiers(), keep_log_spaced(), keep_within(50), weights_after(3)]
    verdict = judge(records, every)
    assert len(verdict.keep) < 100


# What a review found -------------------------------------------------------------------------------------------------


def test_a_budget_is_filled_with_healthy_ones_first() -> None:
    """What diverges must not push out, byte by byte, what one would go back to."""
    records = history(1, 2, 3, 4, 5, size=1)
    records[3:] = [sick(record) for record in records[3:]]
    assert kept(records, keep_within(4)) == ["2", "3", "4", "5"]
    left = [replace(record, line=1) for record in records[:3]] + [replace(record, line=0) for record in records[3:]]
    assert kept(left, keep_within(5)) == ["1", "2", "3", "4", "5"]


def test_only_healthy_ones_count_as_the_latest_that_stay_full() -> None:
    """Else a run that diverges would take the optimizer's state from the last one to go back to."""
    records = history(1, 2, 3, 4)
    records[2:] = [sick(record) for record in records[2:]]
    assert list(judge(records, [keep_all(), weights_after(2)]).demote) == ["3"]


def test_restoring_the_best_means_to_have_it() -> None:
    """It is saved and kept even if nobody said so; what was said already is not said twice."""
    loss = Monitor("loss")
    trigger, rules = with_best(every_steps(3), (keep_last(2),), loss)
    assert (repr(trigger), repr(rules)) == (
        "(every_steps(3) | on_best('loss'))",
        "(keep_last(2), keep_best(1, 'loss'))",
    )
    assert with_best(on_best(loss), (keep_all(),), loss) == (on_best(loss), (keep_all(),))
