"""What the laws are tried on: moments, walks of them, triggers, records and rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import accumulate

from hypothesis import strategies as st

from ckpt_callbacks import (
    Event,
    Moment,
    Monitor,
    Progress,
    every,
    every_batches,
    every_epochs,
    every_steps,
    keep_best,
    keep_every_steps,
    keep_last,
    keep_when,
    on_best,
    on_end,
    on_exception,
    on_signal,
    when,
)
from ckpt_callbacks.engine import Past, Record, Rule, Trigger, decide

counts = st.integers(1, 12)
# Few different values, so that ties are frequent; and all that a diverging run may log.
values = st.sampled_from([0.0, -1.0, 0.5, 0.45, 1.0, 1e-300, float("nan"), float("inf"), float("-inf")]) | st.floats()
metrics = st.dictionaries(st.sampled_from(["val_loss", "val_acc", "lr"]), values, max_size=3)
events = st.builds(Event, st.integers(0, 2 ** len(Event) - 1))


# Triggers ----------------------------------------------------------------------------------------------------------

monitors = st.builds(
    Monitor,
    st.sampled_from(["val_loss", "val_acc"]),
    st.sampled_from(["auto", "min", "max"]),
    min_delta=st.sampled_from([0, 0.0, 0.1, 1]),
    relative=st.booleans(),
)
intervals = (
    st.sampled_from(["30s", "2m", "1h30m", "0.5m"])
    | st.integers(1, 100)
    | st.floats(0.01, 100.0)
    | st.integers(1, 10**9).map(lambda n: timedelta(microseconds=n))
)
leaves = st.one_of(
    counts.map(every_steps),
    counts.map(every_batches),
    counts.map(every_epochs),
    intervals.map(every),
    (st.sampled_from(["val_loss", "val_acc"]) | monitors).map(on_best),
    st.sampled_from([on_end(), on_exception(), on_signal()]),
)


def late_in_the_epoch(moment: Moment) -> bool:
    """A predicate that looks at nothing but the moment."""
    return moment.progress.batch > 3


def joined(parts: st.SearchStrategy[Trigger]) -> st.SearchStrategy[Trigger]:
    """Two triggers made one, either way."""
    pairs = st.tuples(parts, parts)
    return pairs.map(lambda pair: pair[0] | pair[1]) | pairs.map(lambda pair: pair[0] & pair[1])


#: Every trigger whose repr can be evaluated.
plain_triggers = st.recursive(leaves, joined, max_leaves=6)
#: Those, and plain functions among them.
triggers = st.recursive(leaves | st.just(when(late_in_the_epoch)), joined, max_leaves=6)


# Moments -----------------------------------------------------------------------------------------------------------


advances = st.builds(Progress, *[st.integers(0, 4)] * 4)
moments = st.builds(Moment, advances, st.floats(0, 100), events, metrics, st.none() | st.just("before the merge"))
pasts = st.builds(
    Past, advances, st.floats(0, 100), st.dictionaries(monitors.map(lambda one: one.key), st.floats(-1, 1), max_size=2)
)


def later(before: Moment, step: Moment) -> Moment:
    """The moment that comes so much after ``before``; a new epoch begins with its first batch."""
    stood, moved = before.progress, step.progress
    progress = Progress(
        step=stood.step + moved.step,
        epoch=stood.epoch + moved.epoch,
        batch=moved.batch if moved.epoch else stood.batch + moved.batch,
        batches=stood.batches + moved.batches,
    )
    return replace(step, progress=progress, elapsed=before.elapsed + step.elapsed)


#: A training: moments in order, each somewhat later than the one before.
walks = st.lists(moments, max_size=12).map(lambda steps: list(accumulate(steps, later)))


def run(moments: Sequence[Moment], trigger: Trigger, monitors: Sequence[Monitor] = (), past: Past | None = None) -> Run:
    """The reasons at each moment, and the past after each."""
    reasons, pasts = [], [past or Past()]
    for moment in moments:
        decision = decide(moment, pasts[-1], trigger, monitors)
        reasons.append(decision.reasons)
        pasts.append(decision.past)
    return reasons, pasts


Run = tuple[list[tuple[str, ...]], list[Past]]


# Records and rules -------------------------------------------------------------------------------------------------


records = st.builds(
    Record,
    id=st.sampled_from("abc"),
    sequence=st.integers(1, 3),
    progress=st.builds(Progress, step=st.integers(0, 100)),
    metrics=metrics,
    created=st.floats(0, 2e9),
    content=st.sampled_from(["full", "full", "weights"]),
    pinned=st.sampled_from([False, False, False, True]),
)


def after(before: Record, record: Record) -> Record:
    """The record that was committed so much after ``before``, under a name of its own."""
    sequence = before.sequence + record.sequence
    return replace(record, sequence=sequence, id=f"{record.id}{sequence}")


#: The snapshots of a run, oldest first. Steps may go back, clocks may say anything, metrics may be missing.
histories = st.lists(records, max_size=15).map(lambda some: list(accumulate(some, after)))


def has_a_loss(record: Record) -> bool:
    """A predicate that looks at nothing but the record."""
    return "val_loss" in record.metrics


rule = st.one_of(
    counts.map(keep_last),
    st.builds(keep_best, counts, st.sampled_from(["val_loss", "val_acc"])),
    st.integers(1, 40).map(keep_every_steps),
    st.just(keep_when(has_a_loss)),
)
rules: st.SearchStrategy[list[Rule]] = st.lists(rule, max_size=4)
