"""The docket: the snapshots of a run on which the verdict may still change.

Judging all of a run's snapshots after each save costs the more the longer it trains. Most of those that stay do so for
good, though: by rules whose word stands (`Rule.stands`: it hangs on a snapshot and the one before it). They are taken
off the docket, and the others are judged as if they were all there is: the verdicts are those of `judge`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ckpt_callbacks.engine.retention import Kept, Rule, Verdict, judge
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
        verdict = judge(self._open, self._as_seen_here())
        self._open = [one for one in self._open if one.id in verdict.keep]
        self._close(verdict)
        return verdict

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
        """Take off the docket what is kept for good and for no other reason."""
        if not self._closes:
            return
        left = []
        for record in self._open:
            good = tuple(decided[record.id] for decided in self._decided if record.id in decided)
            may_change = record.id in verdict.demote or (self._reduces and record.content == "full")
            if may_change or verdict.keep[record.id] != good:
                left.append(record)
                continue
            self._settled[record.id] = record, good
            self._settled_bytes += record.size
            for decided in self._decided:
                decided.pop(record.id, None)
        self._open = left


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
