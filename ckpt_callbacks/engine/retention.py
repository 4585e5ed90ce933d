"""What to keep: rules over the committed snapshots, and the judge who joins them.

A rule is given all records, oldest first, and returns those it keeps, each with its reason. What any of them keeps is
kept.
Above all rules stand three protections: the newest snapshot, the newest full one (to resume from), and pins.
"""

from __future__ import annotations

import heapq
import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ckpt_callbacks.engine.arguments import name_of, positive, refuse_own
from ckpt_callbacks.engine.monitor import Monitor, expression, find, named
from ckpt_callbacks.engine.snapshot import Record
from ckpt_callbacks.errors import ConfigurationError

__all__ = [
    "Rule",
    "Verdict",
    "best_of",
    "judge",
    "keep_all",
    "keep_best",
    "keep_every_steps",
    "keep_last",
    "keep_when",
    "resolve",
]

Kept = Mapping[str, str]


class Rule:
    """Base of all rules; a subclass defines `__call__`. Its repr is the expression that makes it."""

    __slots__ = ()

    def __call__(self, records: Sequence[Record]) -> Kept:
        """The ids that it keeps -> why; ``records`` are oldest first."""
        raise TypeError(f"{type(self).__name__} must define __call__(records) and return a mapping of ids to reasons")

    def bind(self, monitors: Sequence[Monitor]) -> Rule:
        """The same rule with an open ``monitor=None`` filled in by the first of ``monitors``."""
        return self


@dataclass(frozen=True)
class Verdict:
    """Who stays and who goes: every record is in exactly one of the two.

    Attributes:
        keep: id -> reasons, oldest first.
        drop: id -> why no rule kept it, oldest first.
    """

    keep: Mapping[str, tuple[str, ...]]
    drop: Mapping[str, str]


def judge(records: Iterable[Record], rules: Sequence[Rule]) -> Verdict:
    """Join all rules and protections over one run's committed snapshots, in whatever order they come.

    Judging once after each snapshot, or only at the end, keeps the same; and judging the kept again keeps them all.
    Both hold because every rule stands by its choice: what it keeps among many, it keeps among fewer. A
    `keep_when` does so too if its predicate looks at nothing but the record.
    """
    ordered = _in_order(records)
    reasons: dict[str, list[str]] = {record.id: [] for record in ordered}
    for kept in (_protected(ordered), *(rule(ordered) for rule in rules)):
        for id, why in kept.items():
            reasons[id].append(why)
    why_not = f"no rule keeps it: {', '.join(map(repr, rules)) or 'none is given'}"
    return Verdict(
        keep={id: tuple(why) for id, why in reasons.items() if why},
        drop={id: why_not for id, why in reasons.items() if not why},
    )


def _in_order(records: Iterable[Record]) -> list[Record]:
    """Oldest first, by sequence; never by step (a run may go back) nor by clock."""
    return sorted(records, key=operator.attrgetter("sequence", "id"))


def _protected(records: Sequence[Record]) -> Kept:
    kept = {record.id: "pinned" for record in records if record.pinned}
    full = next((record for record in reversed(records) if record.content == "full"), None)
    if full is not None:
        kept.setdefault(full.id, "newest full: needed to resume")
    if records:
        kept.setdefault(records[-1].id, "newest")
    return kept


def keep_last(n: int) -> Rule:
    """Keep the latest ``n``."""
    return _KeepLast(positive("keep_last", n))


def keep_best(k: int = 1, monitor: str | Monitor | None = None) -> Rule:
    """Keep the ``k`` best by a metric; of equal ones the earlier. Default: the checkpointer's own monitor."""
    return _KeepBest(positive("keep_best", k), named("keep_best", monitor))


def keep_every_steps(n: int) -> Rule:
    """Keep the first snapshot at or after each multiple of ``n`` optimizer steps."""
    return _KeepEverySteps(positive("keep_every_steps", n))


def keep_all() -> Rule:
    """Keep everything."""
    return _KeepAll()


def keep_when(predicate: Callable[[Record], bool]) -> Rule:
    """Keep what ``predicate(record)`` is true for, for instance ``lambda r: r.note is not None``."""
    if not callable(predicate) or isinstance(predicate, (type, Rule)):
        raise ConfigurationError(f"keep_when({predicate!r}): expected a function of a Record.")
    refuse_own("keep_when", predicate)
    return _KeepWhen(predicate)


def resolve(keep: Rule | Iterable[Rule] | None, monitors: Sequence[Monitor]) -> tuple[Rule, ...]:
    """What the user gave as ``keep=``, as rules whose monitors are filled in.

    Args:
        keep: a rule, several, or None for the default: the latest 2, and the best 1 if there is a monitor.
        monitors: the checkpointer's.

    Raises:
        ConfigurationError: no rule at all, something that is none, or an open `keep_best` without any monitor.
    """
    if keep is None:
        rules: tuple[Rule, ...] = (keep_last(2), *([keep_best(1)] if monitors else []))
    else:
        alone = isinstance(keep, (Rule, str)) or not isinstance(keep, Iterable)
        rules = (keep,) if alone else tuple(keep)  # type: ignore[assignment,arg-type]
        if not rules:
            raise ConfigurationError(
                f"keep={keep!r} keeps nothing: expected a rule such as keep_last(2), or a list of them; "
                "keep_all() keeps everything."
            )
    for rule in rules:
        if not isinstance(rule, Rule):
            raise ConfigurationError(
                f"keep={rule!r} is no rule: expected keep_last(n), keep_best(k), keep_all() or the like."
            )
    return tuple(rule.bind(monitors) for rule in rules)


def best_of(records: Iterable[Record], monitor: Monitor) -> Record | None:
    """The record with the best finite value; of equal ones the earliest; None if no record has one."""
    return next(iter(_ranked(_in_order(records), monitor, 1)), None)


def _ranked(records: Sequence[Record], monitor: Monitor, k: int) -> list[Record]:
    """The ``k`` best, best first. `heapq.nsmallest` is stable: of equal ones the earlier comes first."""
    sign = 1.0 if monitor.mode == "min" else -1.0
    valued = [(monitor.value(record.metrics), record) for record in records]
    finite = [(sign * value, record) for value, record in valued if value is not None and math.isfinite(value)]
    return [record for _, record in heapq.nsmallest(k, finite, key=lambda pair: pair[0])]


@dataclass(frozen=True, slots=True)
class _KeepLast(Rule):
    n: int

    def __call__(self, records: Sequence[Record]) -> Kept:
        return {record.id: repr(self) for record in records[-self.n :]}

    def __repr__(self) -> str:
        return f"keep_last({self.n})"


@dataclass(frozen=True, slots=True)
class _KeepBest(Rule):
    k: int
    monitor: Monitor | str | None

    def __call__(self, records: Sequence[Record]) -> Kept:
        monitor = self._found(())
        ranked = enumerate(_ranked(records, monitor, self.k), start=1)
        return {record.id: f"best {monitor.metric} (rank {rank} of {self.k})" for rank, record in ranked}

    def bind(self, monitors: Sequence[Monitor]) -> Rule:
        return _KeepBest(self.k, self._found(monitors))

    def _found(self, monitors: Sequence[Monitor]) -> Monitor:
        monitor = find(self.monitor, monitors)
        if monitor is None:
            raise ConfigurationError(
                f"keep_best({self.k}) needs a metric: pass monitor= to the callback, or "
                f"keep_best({self.k}, 'val_loss')."
            )
        return monitor

    def __repr__(self) -> str:
        return f"keep_best({', '.join(filter(None, [str(self.k), expression(self.monitor)]))})"


@dataclass(frozen=True, slots=True)
class _KeepEverySteps(Rule):
    n: int

    def __call__(self, records: Sequence[Record]) -> Kept:
        kept: dict[str, str] = {}
        reached: set[int] = set()
        for record in records:
            multiple = record.step // self.n
            if multiple and multiple not in reached:
                reached.add(multiple)
                kept[record.id] = f"{self!r}: first at or after step {multiple * self.n}"
        return kept

    def __repr__(self) -> str:
        return f"keep_every_steps({self.n})"


@dataclass(frozen=True, slots=True)
class _KeepAll(Rule):
    def __call__(self, records: Sequence[Record]) -> Kept:
        return {record.id: repr(self) for record in records}

    def __repr__(self) -> str:
        return "keep_all()"


@dataclass(frozen=True, slots=True)
class _KeepWhen(Rule):
    predicate: Callable[[Record], bool]

    def __call__(self, records: Sequence[Record]) -> Kept:
        return {record.id: repr(self) for record in records if self.predicate(record)}

    def __repr__(self) -> str:
        return f"keep_when({name_of(self.predicate)})"
