"""What to keep: each rule, and the judge who joins them."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ckpt_callbacks
from ckpt_callbacks import (
    ConfigurationError,
    Monitor,
    Progress,
    keep_all,
    keep_best,
    keep_every_steps,
    keep_last,
    keep_when,
    keep_within,
    weights_after,
)
from ckpt_callbacks.engine import Record, Rule, best_of, judge, resolve_rules
from ckpt_callbacks.engine.rules import recorded
from tests.engine.strategies import counts, has_a_loss, histories, rule, rules

LOSS, ACC = Monitor("val_loss"), Monitor("val_acc")


class KeepNone(Rule):
    """Keeps nothing at all."""

    def __call__(self, records: Sequence[Record]) -> Mapping[str, str]:
        return {}


def history(*steps: int, **losses: float) -> list[Record]:
    """Snapshots at these steps, in this order; ``s20=0.5`` is the loss at step 20."""
    return [
        Record(str(step), n, Progress(step), {"val_loss": losses[f"s{step}"]} if f"s{step}" in losses else {})
        for n, step in enumerate(steps, start=1)
    ]


def kept(records: Sequence[Record], *rules: Rule) -> list[str]:
    """The ids that stay, oldest first."""
    return list(judge(records, rules).keep)


def among(records: Sequence[Record], ids: Mapping[str, object]) -> list[Record]:
    """Those of the records that are named."""
    return [record for record in records if record.id in ids]


# The judge ----------------------------------------------------------------------------------------------------------


@given(histories, rules)
def test_every_snapshot_either_stays_or_goes(records: list[Record], rules: list[Rule]) -> None:
    """None in both, none forgotten, both lists oldest first."""
    verdict = judge(records, rules)
    assert not verdict.keep.keys() & verdict.drop.keys()
    assert [r.id for r in records] == [r.id for r in records if r.id in verdict.keep or r.id in verdict.drop]
    assert list(verdict.keep) == [record.id for record in records if record.id in verdict.keep]
    assert list(verdict.drop) == [record.id for record in records if record.id in verdict.drop]


@given(histories, rules)
def test_everything_is_kept_and_dropped_for_a_reason(records: list[Record], rules: list[Rule]) -> None:
    """So a dry run, a log and a report need no logic of their own."""
    verdict = judge(records, rules)
    assert all(whys and all(whys) for whys in verdict.keep.values())
    assert all(why.startswith("no rule keeps it: ") for why in verdict.drop.values())
    assert all(repr(rule) in why for why in verdict.drop.values() for rule in rules)


@given(histories, rules, st.booleans())
def test_the_newest_the_newest_full_and_pins_survive_any_rules(
    records: list[Record], rules: list[Rule], strict: bool
) -> None:
    """Also rules that keep nothing, and no rules at all: there is always one to resume from."""
    verdict = judge(records, [KeepNone()] if strict else rules)
    full = [record for record in records if record.content == "full"]
    protected = {record.id for record in [*records[-1:], *full[-1:], *(r for r in records if r.pinned)]}
    assert protected <= verdict.keep.keys()
    if strict:
        assert protected == verdict.keep.keys()


@given(histories, rules)
def test_judging_the_kept_again_keeps_them_all(records: list[Record], rules: list[Rule]) -> None:
    """A second prune does nothing, for every rule and any of them together; and every reason stays the same."""
    once = judge(records, rules)
    again = judge(among(records, once.keep), rules)
    assert not again.drop
    assert {id: whys for id, whys in again.keep.items() if id in once.keep} == once.keep


@given(histories, rules)
def test_judging_after_each_snapshot_is_judging_at_the_end(records: list[Record], rules: list[Rule]) -> None:
    """What a long run has kept does not depend on how often it tidied up."""
    left: list[Record] = []
    for record in records:
        left.append(record)
        left = among(left, judge(left, rules).keep)
    assert judge(left, rules).keep == judge(records, rules).keep


@given(histories, rules, st.randoms(use_true_random=False), st.data())
def test_neither_the_order_given_nor_the_clock_matters(
    records: list[Record], rules: list[Rule], random: Any, data: st.DataObject
) -> None:
    """A folder may be listed in any order, a clock may go backwards, files may be touched or copied."""
    shuffled = [replace(record, created=data.draw(st.floats(0, 2e9))) for record in records]
    random.shuffle(shuffled)
    assert judge(iter(shuffled), rules) == judge(records, rules)
    assert list(judge(shuffled, rules).keep) == kept(records, *rules)


@given(histories, rule, rules)
def test_a_further_rule_only_keeps_more(records: list[Record], one: Rule, others: list[Rule]) -> None:
    """What any of them keeps is kept: the union."""
    together = judge(records, [one, *others]).keep.keys()
    assert together == judge(records, [one]).keep.keys() | judge(records, others).keep.keys()


def test_the_reasons_add_up() -> None:
    """Of several, all are told; protections first."""
    records = history(10, 20, 30, s10=0.1, s20=0.2, s30=0.3)
    records[1] = replace(records[1], pinned=True)
    verdict = judge(records, [keep_last(1), keep_best(2, "val_loss")])
    assert verdict.keep == {
        "10": ("best val_loss (rank 1 of 2)",),
        "20": ("pinned", "best val_loss (rank 2 of 2)"),
        "30": ("newest full: needed to resume", "keep_last(1)"),
    }
    assert judge(records, [keep_best(1, "val_loss")]).drop == {}
    assert judge(history(10, 20), [keep_last(1)]).drop == {"10": "no rule keeps it: keep_last(1)"}
    assert judge(history(10, 20), []).drop == {"10": "no rule keeps it: none is given"}


def test_the_newest_may_be_weights_and_then_two_are_protected() -> None:
    """The newest because it is, and the newest that can be resumed from."""
    records = history(10, 20, 30)
    records[2] = replace(records[2], content="weights")
    assert judge(records, [KeepNone()]).keep == {"20": ("newest full: needed to resume",), "30": ("newest",)}


def test_an_empty_run_has_nothing_to_judge() -> None:
    """Nor is that an error."""
    assert judge([], [keep_last(2), keep_best(1, LOSS), keep_every_steps(5), keep_all()]) == judge([], [])


def test_order_is_by_sequence_not_by_step() -> None:
    """A run that went back to an older snapshot has smaller steps later; and 999 comes before 1000."""
    assert kept(history(10, 20, 30, 15), keep_last(2)) == ["30", "15"]
    assert kept(history(999, 1000), keep_last(1)) == ["1000"]
    assert best_of(history(30, 10, s30=0.5, s10=0.5), LOSS) == history(30, 10, s30=0.5, s10=0.5)[0]


# The best -----------------------------------------------------------------------------------------------------------


@given(histories, counts, st.sampled_from([LOSS, ACC]))
def test_the_k_best_are_kept(records: list[Record], k: int, monitor: Monitor) -> None:
    """The first k of all finite values, sorted; of equal ones the earlier. Others are not even looked at."""
    measured = [r for r in records if monitor.metric in r.metrics and math.isfinite(r.metrics[monitor.metric])]
    sign = 1 if monitor.mode == "min" else -1
    best = sorted(measured, key=lambda record: (sign * record.metrics[monitor.metric], record.sequence))[:k]
    assert set(keep_best(k, monitor)(records)) == {record.id for record in best}
    assert best_of(records, monitor) == (best[0] if best else None)


def test_the_best_survives_when_everything_after_it_is_worse() -> None:
    """In both directions, and 0.0 is a value like any other."""
    records = history(10, 20, 30, s10=0.7, s20=0.0, s30=0.1)
    assert kept(records, keep_best(1, "val_loss")) == ["20", "30"]
    assert kept(records, keep_best(1, Monitor("val_loss", "max"))) == ["10", "30"]


def test_a_run_that_diverges_keeps_its_best() -> None:
    """NaN and infinity never push it out, and count as nothing themselves."""
    nan, inf = math.nan, math.inf
    records = history(10, 20, 30, 40, 50, s10=0.5, s20=nan, s30=-inf, s40=inf, s50=nan)
    assert kept(records, keep_best(3, LOSS)) == ["10", "50"]
    assert best_of(records, LOSS) == records[0]
    assert best_of(records[1:], LOSS) is None


def test_a_metric_that_nobody_measured_keeps_nothing_more() -> None:
    """Snapshots between validations have none of it."""
    assert kept(history(10, 20, 30), keep_best(2, LOSS)) == ["30"]
    assert best_of(history(10, 20), LOSS) is None


# The others ---------------------------------------------------------------------------------------------------------


@given(histories, counts)
def test_the_last_n(records: list[Record], n: int) -> None:
    """The n newest, or all if there are fewer."""
    assert list(keep_last(n)(records)) == [record.id for record in records[-n:]]


@given(st.lists(st.integers(0, 60)).map(sorted), st.integers(1, 20))
def test_the_first_snapshot_at_or_after_each_multiple(steps: list[int], n: int) -> None:
    """One for each multiple of n, however the saves fell; none for zero."""
    records = [Record(f"{sequence}", sequence, Progress(step)) for sequence, step in enumerate(steps)]
    wanted = {
        next((str(sequence) for sequence, step in enumerate(steps) if multiple <= step < multiple + n), None)
        for multiple in range(n, 61, n)
    }
    assert set(keep_every_steps(n)(records)) == wanted - {None}


def test_milestones_do_not_drift() -> None:
    """A save that comes late does not move the next milestone."""
    records = history(50, 130, 190, 200, 260, 290, 310, 400)
    assert list(keep_every_steps(100)(records)) == ["130", "200", "310", "400"]
    assert keep_every_steps(100)(records)["130"] == "keep_every_steps(100): first at or after step 100"


def test_all_and_by_a_function() -> None:
    """Everything, or whatever somebody's function says."""
    records = history(10, 20, 30, s20=0.5)
    assert kept(records, keep_all()) == ["10", "20", "30"]
    assert kept(records, keep_when(has_a_loss)) == ["20", "30"]
    assert judge(records, [keep_when(has_a_loss)]).keep["20"] == ("keep_when(has_a_loss)",)


# Written, bound -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "written",
    [
        *("keep_last(2)", "keep_best(3)", "keep_best(1, 'val_loss')", "keep_best(2, Monitor('foo', 'min'))"),
        *("keep_every_steps(1000)", "keep_all()", "keep_when(has_a_loss)"),
    ],
)
def test_the_repr_is_the_expression_that_makes_it(written: str) -> None:
    """So what is logged can be pasted into a program; and it can be copied and pickled."""
    made = eval(written, {**vars(ckpt_callbacks), "has_a_loss": has_a_loss})
    assert repr(made) == written
    assert copy.deepcopy(made) == pickle.loads(pickle.dumps(made)) == made  # noqa: S301


def test_bind_fills_in_the_first_monitor() -> None:
    """An own one stays."""
    assert keep_best(2).bind([LOSS, ACC]) == keep_best(2, LOSS)
    assert keep_best(2, "val_acc").bind([LOSS]) == keep_best(2, ACC)
    assert keep_last(2).bind([]) == keep_last(2)


def test_an_open_monitor_without_any_to_fill_it_is_refused() -> None:
    """With both ways out, when it is bound, or asked while open."""
    with pytest.raises(ConfigurationError, match=r"keep_best\(2\) needs a metric: .* or keep_best\(2, 'val_loss'\)"):
        resolve_rules(keep_best(2), [])
    with pytest.raises(ConfigurationError, match="needs a metric"):
        keep_best(2)(history(10))


def test_the_default() -> None:
    """The latest 2, and the best 1 if there is a monitor."""
    assert resolve_rules(None, []) == (keep_last(2),)
    assert resolve_rules(None, [LOSS]) == (keep_last(2), keep_best(1, LOSS))


def test_what_the_user_gives_as_keep() -> None:
    """A rule, or several."""
    assert resolve_rules(keep_all(), []) == (keep_all(),)
    assert resolve_rules((r for r in (keep_last(1), keep_best())), [LOSS]) == (keep_last(1), keep_best(1, LOSS))


def test_a_rule_of_ones_own_is_a_subclass() -> None:
    """It is asked like the others; one that forgot to say what it keeps is told so."""
    assert resolve_rules([KeepNone()], [])[0](history(1)) == {}
    with pytest.raises(TypeError, match="must define __call__"):
        Rule()(history(1))


def test_a_name_means_the_checkpointers_own_monitor_of_that_name() -> None:
    """`monitor="x_score", mode="min"` holds for `keep_best(1, "x_score")` too."""
    own = Monitor("x_score", "min")
    assert keep_best(1, "x_score").bind([LOSS, own]) == keep_best(1, own)


@given(histories, rules, st.sets(st.integers(0, 15)))
def test_a_rule_that_is_not_known_here_lets_nothing_be_dropped(
    records: list[Record], rules: list[Rule], noted: set[int]
) -> None:
    """And whatever it keeps in truth, what is reduced here is reduced there; what others keep is told as ever."""
    ids = [record.id for n, record in enumerate(records) if n in noted]
    unknown, known = recorded("mine()", {id: ["mine()"] for id in ids}), [*rules, weights_after(2)]
    verdict, without = judge(records, [unknown, *known]), judge(records, known)
    assert not verdict.drop
    assert all(set(why) <= set(verdict.keep[id]) for id, why in without.keep.items())
    assert {id for id, why in verdict.keep.items() if "mine()" in why} == set(ids)
    for truth in (keep_when(lambda record: record.id in ids), keep_all()):
        assert verdict.demote.keys() <= judge(records, [truth, *known]).demote.keys()


@given(histories, rules, st.lists(st.booleans(), min_size=15, max_size=15))
def test_what_another_run_has_taken_stays_and_counts_for_nothing(
    records: list[Record], rules: list[Rule], own: list[bool]
) -> None:
    """Wherever it stands in the order: the others are judged as if it were not there."""
    mixed = [replace(record, own=is_own) for record, is_own in zip(records, own, strict=False)]
    ours, rules = [record for record in mixed if record.own], [*rules, keep_within(50), weights_after(1)]
    verdict, alone = judge(mixed, rules), judge(ours, rules)
    guests = {record.id: ("taken by another run: left alone",) for record in mixed if not record.own}
    assert verdict.keep == {**alone.keep, **guests}
    assert (verdict.drop, verdict.demote, verdict.exceeded) == (alone.drop, alone.demote, alone.exceeded)
    assert best_of(mixed, LOSS) == best_of(ours, LOSS)
