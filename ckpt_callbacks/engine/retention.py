"""What to keep: the judge, who joins the rules over one run's committed snapshots.

A rule is given records, oldest first, and returns those it keeps, each with its reason. What any of them keeps is
kept. Above all rules stand the protections: pins, the newest snapshot, and the newest full and healthy ones.

What another run has taken, and somebody put here, is not ours to judge: it stays, and counts for nothing. Three things
are kept apart, so that they never push out what they have nothing to do with:

- a snapshot that is *not healthy* (its weights or its loss are not finite numbers): rules count healthy ones only;
- an *abandoned line*: what was saved after a snapshot that training went back to. Rules judge each line by itself;
- what a *budget* allows beyond that (`Rule.fill`): it counts what the others keep, and is asked after them.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import ClassVar

from ckpt_callbacks.engine.monitor import Monitor
from ckpt_callbacks.engine.snapshot import Record

__all__ = ["Kept", "Rule", "Verdict", "by_worth", "judge", "worth"]

Kept = Mapping[str, str]

GUEST = "taken by another run: left alone"


class Rule:
    """Base of all rules; a subclass defines `__call__`. Its repr is the expression that makes it."""

    __slots__ = ()

    #: Whether its word on a record hangs on that one and the one before it alone, and stands whatever is saved later.
    stands: ClassVar[bool] = False
    #: Whether it need not see again what it does not keep now, though other rules keep it.
    forgets: ClassVar[bool] = False
    #: Whether its `fill` keeps the first of `by_worth` that fit, up to one that does not, for the reason of its repr.
    fills: ClassVar[bool] = False

    def __call__(self, records: Sequence[Record]) -> Kept:
        """The ids that it keeps -> why; ``records`` are oldest first, healthy, and of one line."""
        raise TypeError(f"{type(self).__name__} must define __call__(records) and return a mapping of ids to reasons")

    def apart(self, records: Sequence[Record]) -> Kept:
        """Which of a line's records that are not healthy it keeps -> why."""
        return {}

    def fill(self, records: Sequence[Record], kept: Collection[str]) -> Kept:
        """What it keeps beyond the ids that are kept already, of all records -> why."""
        return {}

    def demote(self, records: Sequence[Record]) -> Kept:
        """Which of the records that stay shall keep their weights only -> why."""
        return {}

    def doubts(self, records: Sequence[Record]) -> Kept:
        """Those of which nobody can tell here whether it keeps them -> why; they stay as they are."""
        return {}

    @property
    def monitors(self) -> tuple[Monitor, ...]:
        """The monitors whose values it asks for."""
        return ()

    def exceeded(self, records: Sequence[Record]) -> str | None:
        """What the user must know if what stays is more than it allows."""
        return None

    def besides(self, count: int, nbytes: int) -> Rule:
        """The same rule, where so many snapshots of so many bytes are kept that it is not shown."""
        return self

    @property
    def words(self) -> str:
        """What it keeps, as a sentence would say it."""
        return repr(self)

    def bind(self, monitors: Sequence[Monitor]) -> Rule:
        """The same rule with an open ``monitor=None`` filled in by the first of ``monitors``."""
        return self


@dataclass(frozen=True)
class Verdict:
    """Who stays and who goes: every record is in exactly one of ``keep`` and ``drop``.

    Attributes:
        keep: id -> reasons, oldest first.
        drop: id -> why no rule kept it, oldest first.
        demote: id, one of those that stay -> why it shall keep its weights only, oldest first.
        exceeded: what is kept against a rule, as sentences.
    """

    keep: Mapping[str, tuple[str, ...]]
    drop: Mapping[str, str]
    demote: Mapping[str, str] = field(default_factory=dict)
    exceeded: tuple[str, ...] = ()


def judge(records: Iterable[Record], rules: Sequence[Rule]) -> Verdict:
    """Join all rules and protections over one run's committed snapshots, in whatever order they come.

    Judging once after each snapshot, or only at the end, keeps the same; and judging the kept again keeps them all.
    Both hold because every rule stands by its choice: what it keeps among many, it keeps among fewer. A
    `keep_when` does so too if its predicate looks at nothing but the record. A budget does so as long as what the
    other rules keep does not shrink.
    """
    everything = _in_order(records)
    ordered = [record for record in everything if record.own]
    reasons: dict[str, tuple[str, ...]] = {record.id: (GUEST,) for record in everything if not record.own}
    for kept in (_protected(ordered), *_by_rules(ordered, rules)):
        _add(reasons, kept)
    for rule in rules:
        _add(reasons, rule.fill(ordered, reasons.keys()))
    left = [record for record in ordered if record.id in reasons]
    demote, exceeded = _demoted(left, rules), filter(None, [rule.exceeded(left) for rule in rules])
    for rule in rules:  # what is certain was worked out without them: more that stays makes it no less so
        _add(reasons, rule.doubts([record for record in ordered if record.id not in reasons]))
    why_not = f"no rule keeps it: {', '.join(map(repr, rules)) or 'none is given'}"
    return Verdict(
        keep={record.id: reasons[record.id] for record in everything if record.id in reasons},
        drop={record.id: why_not for record in everything if record.id not in reasons},
        demote=demote,
        exceeded=tuple(exceeded),
    )


def worth(record: Record) -> tuple[bool, bool, int, str]:
    """Who goes first when a budget is full: what is kept apart, so that it never pushes out what it has nothing to do
    with, and then the oldest.
    """
    return record.healthy, not record.line, record.sequence, record.id


def by_worth(records: Sequence[Record]) -> Iterator[Record]:
    """What is worth the most first; ``records`` are oldest first. The order of `worth`, without making its keys."""
    for healthy in (True, False):
        for abandoned in (False, True):
            yield from (one for one in reversed(records) if one.healthy is healthy and (one.line > 0) is abandoned)


def _in_order(records: Iterable[Record]) -> list[Record]:
    """Oldest first, by sequence; never by step (a run may go back) nor by clock."""
    by_id = sorted(records, key=operator.attrgetter("id"))
    return sorted(by_id, key=operator.attrgetter("sequence"))  # stable; sorting by pairs takes several times as long


def _add(reasons: dict[str, tuple[str, ...]], kept: Kept) -> None:
    for id, why in kept.items():
        reasons[id] = (*reasons[id], why) if id in reasons else (why,)


def _protected(records: Sequence[Record]) -> Kept:
    kept = {one.id: f"pinned: {one.pin_note}" if one.pin_note else "pinned" for one in records if one.pinned}
    if records:
        kept.setdefault(records[-1].id, "newest")
    full = [record for record in records if record.content == "full"]
    for record, why in ((_newest(full), "newest full: needed to resume"), (_newest_healthy(full), "newest healthy")):
        if record is not None and kept.get(record.id) in (None, "newest"):
            kept[record.id] = why
    return kept


def _newest(records: Sequence[Record]) -> Record | None:
    return records[-1] if records else None


def _newest_healthy(records: Sequence[Record]) -> Record | None:
    return next((record for record in reversed(records) if record.healthy), None)


def _by_rules(records: Sequence[Record], rules: Sequence[Rule]) -> Iterable[Kept]:
    """What rules keep of each line, the healthy and the others apart."""
    by_line = operator.attrgetter("line")
    for _, of_line in groupby(sorted(records, key=by_line), by_line):
        line = list(of_line)  # sorted is stable
        healthy, others = [one for one in line if one.healthy], [one for one in line if not one.healthy]
        yield from (rule(healthy) for rule in rules)
        yield {record.id: "kept apart: the first that is not healthy" for record in others[:1]}
        yield from (rule.apart(others) for rule in rules)


def _demoted(kept: Sequence[Record], rules: Sequence[Rule]) -> Kept:
    """What stays without what resume needs; never a pin, nor what a resume would begin with."""
    full = [record for record in kept if record.content == "full"]
    spared = {record.id for record in (_newest(full), _newest_healthy(full)) if record is not None}
    spared |= {record.id for record in kept if record.pinned}
    demoted = {id: why for rule in rules for id, why in rule.demote(kept).items()}
    return {record.id: demoted[record.id] for record in full if record.id in demoted and record.id not in spared}
