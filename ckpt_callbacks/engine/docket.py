"""The docket: the snapshots of a run on which the verdict may still change.

Judging all of a run's snapshots after each save costs the more the longer it trains. Most of those that stay do so for
good, though: by rules whose word stands (`Rule.stands`: it hangs on a snapshot and the one before it). They are taken
off the docket, and the others are judged as if they were all there is: the verdicts are those of `judge`.

What only a budget keeps (`Rule.fills`) is shelved: it stays as long as there is room. When there is none, those that
are worth the least are taken back, as many as it takes.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ckpt_callbacks.engine.retention import Kept, Rule, Verdict, judge, worth
from ckpt_callbacks.engine.snapshot import Record

__all__ = ["Docket"]


class Docket:
    """Judges a run from one save to the next, each in order; whatever else happens to the run needs a new docket.

    Args:
        rules: bound.
        records: what there is already.
    """

    def __init__(self, rules: Sequence[Rule], records: Iterable[Record] = ()) -> None:
        self._rules = tuple(rules)
        self._closes = all(rule.stands or rule.forgets for rule in rules)
        self._reduces = any(type(rule).demote is not Rule.demote for rule in rules)
        self._open = sorted(records, key=lambda one: (one.sequence, one.id))
        self._settled: dict[str, tuple[Record, tuple[str, ...]]] = {}
        self._settled_bytes = 0
        budgets = [rule for rule in rules if rule.fills]
        self._budget = budgets[0] if len(budgets) == 1 else None  # several, one after another, are too rare to shelve
        self._shelf: list[Record] = []  # of the settled, those that only the budget keeps: worth the least first
        self._decided: list[dict[str, str]] = [{} for _ in rules]  # of the rules that stand, what each has kept
        self._before: Record | None = None  # the last healthy one on the line that training is on
        self._decide_all()

    def _decide_all(self) -> None:
        """Ask the rules that stand about all that was there before."""
        ours = [one for one in self._open if one.own and one.healthy]
        for line in {one.line for one in ours}:
            of_line = [one for one in ours if one.line == line]
            for rule, decided in zip(self._rules, self._decided, strict=True):
                decided.update(rule(of_line) if rule.stands else {})
            self._before = of_line[-1] if line == 0 else self._before

    @property
    def nbytes(self) -> int:
        """The bytes of all that is kept."""
        return self._settled_bytes + sum(record.size for record in self._open)

    @property
    def count(self) -> int:
        """How many are kept."""
        return len(self._settled) + len(self._open)

    def kept(self) -> Iterator[Record]:
        """All that is kept, oldest first."""
        return iter(sorted([*self._open, *(one for one, _ in self._settled.values())], key=lambda one: one.sequence))

    def why(self) -> Mapping[str, tuple[str, ...]]:
        """Why those are kept that are off the docket."""
        return {id: why for id, (_, why) in self._settled.items()}

    def judge(self, record: Record | None = None) -> Verdict:
        """The verdict on what is on the docket, now that ``record`` was saved, or on all that was there at first.

        What it drops is gone then; what it reduces must be told to `reduced`.
        """
        if record is not None:
            self._open.append(record)
            self._decide(record)
        verdict = self._judged()
        self._open = [one for one in self._open if one.id in verdict.keep]
        self._close(verdict)
        return verdict

    def _judged(self) -> Verdict:
        take = 1
        while True:
            verdict = judge(self._open, self._as_seen_here())
            if self._shelf_stays(verdict):
                return verdict
            self._take_back(take)
            take *= 2

    def _shelf_stays(self, verdict: Verdict) -> bool:
        """Whether the budget has room for the shelf, and would come to all of it before what it drops."""
        if not self._shelf:
            return True
        least = worth(self._shelf[0])
        return not verdict.exceeded and all(worth(one) < least for one in self._open if one.id in verdict.drop)

    def _take_back(self, count: int) -> None:
        """Put what is worth the least on the docket again."""
        back = self._shelf[:count]
        del self._shelf[:count]
        for record in back:
            del self._settled[record.id]
            self._settled_bytes -= record.size
        self._open = [*back, *self._open]

    def reduced(self, id: str, size: int) -> None:
        """A snapshot has its weights only now."""
        self._open = [replace(one, content="weights", size=size) if one.id == id else one for one in self._open]

    def _decide(self, record: Record) -> None:
        """Ask the rules that stand about a new one: it and the one before it are all that they need."""
        if not record.healthy:
            return
        pair = [record] if self._before is None else [self._before, record]
        for rule, decided in zip(self._rules, self._decided, strict=True):
            if rule.stands and (why := rule(pair).get(record.id)) is not None:
                decided[record.id] = why
        self._before = record

    def _as_seen_here(self) -> list[Rule]:
        return [
            _Decided(rule, decided) if rule.stands else rule.besides(len(self._settled), self._settled_bytes)
            for rule, decided in zip(self._rules, self._decided, strict=True)
        ]

    def _close(self, verdict: Verdict) -> None:
        """Take off the docket what is kept for good, or by the budget, and for no other reason."""
        if not self._closes:
            return
        left, reducible = [], self._first_reducible()
        for record in self._open:
            good = tuple(decided[record.id] for decided in self._decided if record.id in decided)
            why = verdict.keep[record.id]
            shelved = self._budget is not None and why == (repr(self._budget),)
            if record.sequence >= reducible or not (shelved or why == good):
                left.append(record)
                continue
            self._settled[record.id] = record, why
            self._settled_bytes += record.size
            if shelved:
                insort(self._shelf, record, key=worth)
            for decided in self._decided:
                decided.pop(record.id, None)
        self._open = left

    def _first_reducible(self) -> float:
        """From which sequence number on a rule that reduces has to see snapshots: it counts from the newest."""
        full = [one.sequence for one in self._open if one.content == "full" and not one.pinned and one.own]
        return min(full, default=math.inf) if self._reduces else math.inf


@dataclass(frozen=True)
class _Decided(Rule):
    """A rule whose word on each record is known."""

    rule: Rule
    decided: Mapping[str, str]

    def __call__(self, records: Sequence[Record]) -> Kept:
        return {record.id: self.decided[record.id] for record in records if record.id in self.decided}

    def apart(self, records: Sequence[Record]) -> Kept:
        return self.rule.apart(records)

    def __repr__(self) -> str:
        return repr(self.rule)
