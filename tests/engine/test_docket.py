"""The docket gives the verdicts of the judge who looks at everything after each save."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from ckpt_callbacks import (
    Monitor,
    Progress,
    keep_all,
    keep_best,
    keep_every_steps,
    keep_last,
    keep_log_spaced,
    keep_tiers,
    keep_when,
    keep_within,
    weights_after,
)
from ckpt_callbacks.engine import Record, Rule, judge
from ckpt_callbacks.engine.docket import Docket

LOSS = Monitor("loss")
WEIGHTS = 3


class EveryThird(Rule):
    """A rule of the user's, of which nothing is known."""

    def __call__(self, records: Sequence[Record]) -> dict[str, str]:
        return {record.id: "every third" for record in records[::3]}


rule = st.one_of(
    st.integers(1, 4).map(keep_last),
    st.integers(1, 3).map(lambda k: keep_best(k, LOSS)),
    st.integers(1, 9).map(keep_every_steps),
    st.sampled_from([1.3, 2.0]).map(keep_log_spaced),
    st.dictionaries(st.sampled_from([2, 5, 20]), st.integers(1, 3), min_size=1).map(keep_tiers),
    st.integers(1, 90).map(keep_within),
    st.integers(1, 4).map(weights_after),
    st.just(keep_all()),
    st.just(keep_when(lambda record: record.step % 3 == 0)),
    st.just(keep_when(lambda record: record.content == "full")),
)
policies = st.lists(rule, max_size=4)


@st.composite
def runs(draw: st.DrawFn) -> list[Record]:
    """Saves in order: some of an abandoned line, of another run, pinned, or not healthy, before those to come."""
    steps, saves = 0, []
    for sequence in range(1, draw(st.integers(1, 30)) + 1):
        steps += draw(st.integers(1, 4))
        saves.append(
            Record(
                *(f"s{sequence}", sequence, Progress(steps)),
                metrics=draw(st.dictionaries(st.just("loss"), st.floats(0, 1), max_size=1)),
                elapsed=float(steps),
                content=draw(st.sampled_from(["full", "full", "weights"])),
                size=draw(st.integers(1, 20)),
                healthy=draw(st.sampled_from([True, True, True, False])),
            )
        )
    return saves


@given(runs(), policies, st.integers(0, 30), st.data())
def test_verdicts_are_those_of_the_judge(
    saves: list[Record], rules: list[Rule], there: int, data: st.DataObject
) -> None:
    """After each save, from any beginning: what is kept and why, what is dropped, what is reduced."""
    mark = st.sampled_from([{}, {}, {"line": 1}, {"own": False}, {"pinned": True}])
    left = [replace(one, **data.draw(mark)) for one in saves[:there]]
    docket = Docket(rules, left)
    for record in (None, *saves[there:]):
        everything = [*left, *([record] if record else [])]
        expected, verdict = judge(everything, rules), docket.judge(record)
        assert {**docket.why(), **verdict.keep} == expected.keep
        assert (verdict.drop, verdict.demote, verdict.exceeded) == (expected.drop, expected.demote, expected.exceeded)
        left = [one for one in everything if one.id in expected.keep]
        for id in verdict.demote:
            docket.reduced(id, WEIGHTS)
            left = [replace(one, content="weights", size=WEIGHTS) if one.id == id else one for one in left]
        assert list(docket.kept()) == left
        assert (docket.count, docket.nbytes) == (len(left), sum(one.size for one in left))


@given(runs())
def test_a_rule_of_which_nothing_is_known_sees_everything(saves: list[Record]) -> None:
    """So whatever it looks at, the verdict is the judge's."""
    rules, left = [keep_all(), EveryThird()], list[Record]()
    docket = Docket(rules)
    for record in saves:
        left.append(record)
        assert docket.judge(record).keep == judge(left, rules).keep


def test_what_is_kept_for_good_is_judged_no_more() -> None:
    """Whatever is kept in all, only that stays on the docket on which something may change."""
    rules = [keep_all(), keep_every_steps(3), keep_last(2), keep_best(1, LOSS), weights_after(4), keep_within(100)]
    docket = Docket(rules)
    for step in range(1, 200):
        verdict = docket.judge(Record(str(step), step, Progress(step), {"loss": 1 / step}, size=9))
        for id in verdict.demote:
            docket.reduced(id, WEIGHTS)
    assert len(verdict.keep) == 6  # the newest four, the one that is reduced now, and the one that was just before
    assert docket.count == 199


def test_what_a_budget_keeps_is_judged_when_it_is_full() -> None:
    """Until then it only grows; from then on the oldest goes when another comes, and the others are not looked at."""
    docket, room = Docket([keep_within(900)]), 100
    for step in range(1, 3 * room):
        verdict = docket.judge(Record(str(step), step, Progress(step), size=9))
        assert len(verdict.keep) <= 3
        assert list(verdict.drop) == ([str(step - room)] if step > room else [])
        assert docket.count == min(step, room)


def test_a_function_of_the_users_is_asked_again_after_each_save() -> None:
    """What it says may change: with the time, or with what is left of a snapshot; and a resume asks anew."""
    late = False
    docket = Docket([keep_when(lambda record: not late), keep_last(1)])
    for step in (1, 2, 3):
        assert not docket.judge(Record(str(step), step)).drop
    late = True
    assert list(docket.judge(Record("4", 4)).drop) == ["1", "2", "3"]
