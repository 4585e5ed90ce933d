"""The retention rules: what each of them keeps. See `ckpt_callbacks.engine.retention` for how they are joined."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import ClassVar

from ckpt_callbacks.engine.arguments import name_of, positive, refuse_own
from ckpt_callbacks.engine.monitor import Monitor, expression, find, named, to_float
from ckpt_callbacks.engine.retention import Kept, Rule, by_worth
from ckpt_callbacks.engine.snapshot import Record
from ckpt_callbacks.engine.triggers import Trigger, on_best
from ckpt_callbacks.engine.units import bytes_of, human_seconds, seconds_of
from ckpt_callbacks.errors import ConfigurationError

__all__ = [
    "best_of",
    "keep_all",
    "keep_best",
    "keep_every_steps",
    "keep_last",
    "keep_log_spaced",
    "keep_tiers",
    "keep_when",
    "keep_within",
    "promised",
    "recorded",
    "resolve",
    "weights_after",
    "with_best",
]

HOUR, DAY = 3600.0, 86400.0
MAX_RULES = 100
"""How many rules a run may have: each is asked about each snapshot."""


def keep_last(n: int) -> Rule:
    """Keep the latest ``n``."""
    return _KeepLast(positive("keep_last", n))


def keep_best(k: int = 1, monitor: str | Monitor | None = None) -> Rule:
    """Keep the ``k`` best by a metric; of equal ones the earlier. Default: the checkpointer's own monitor."""
    return _KeepBest(positive("keep_best", k), named("keep_best", monitor))


def keep_every_steps(n: int) -> Rule:
    """Keep the first snapshot at or after each multiple of ``n`` optimizer steps."""
    return _KeepEverySteps(positive("keep_every_steps", n))


def keep_log_spaced(base: float = 2.0) -> Rule:
    """Keep the first snapshot at or after step 1, base, base², ...: as many early as late, on a logarithmic axis.

    Args:
        base: by how much each step is farther than the one before; more than 1 (1.0001 to a million). 1.2 keeps four
            times as many as 2.
    """
    if isinstance(base, bool) or not isinstance(base, (int, float)) or not 1.0001 <= base <= 1e6:
        raise ConfigurationError(f"keep_log_spaced({base!r}): expected a number that is more than 1, up to a million.")
    return _KeepLogSpaced(float(base))


def keep_tiers(
    tiers: Mapping[str | float | timedelta, int] | None = None,
    *,
    hourly: int = 0,
    daily: int = 0,
    weekly: int = 0,
    monthly: int = 0,
) -> Rule:
    """Keep fewer the older they are: the last snapshot of each of the latest ``n`` hours, of the latest days, ...

    Time is the training time of the run (over all resumes), so that an hour in a queue counts for nothing. An
    interval in which nothing was saved doesn't count either. Grandfather, father, son, as backups have it.

    Args:
        tiers: how long an interval is (as in `every`) -> of how many of them one is kept, for instance
            ``{"10m": 6, "1h": 24}``.
        hourly, daily, weekly, monthly: the same for one hour, 1 day, 7 days, 30 days. Without any: 24, 7, 4 and 0.
    """
    plain = {HOUR: hourly, DAY: daily, 7 * DAY: weekly, 30 * DAY: monthly}
    if tiers is None and not any(plain.values()):
        plain = {HOUR: 24, DAY: 7, 7 * DAY: 4}
    given = {seconds_of(length, "keep_tiers"): n for length, n in (tiers or {}).items()}
    joined = {**{length: n for length, n in plain.items() if n}, **given}
    if not joined:
        raise ConfigurationError(
            f"keep_tiers({tiers!r}) keeps nothing: expected such as keep_tiers(hourly=24, daily=7)."
        )
    return _KeepTiers(tuple((length, positive("keep_tiers", n)) for length, n in sorted(joined.items())))


def keep_within(budget: str | int) -> Rule:
    """Keep, besides what other rules keep, the newest that fit into a budget of bytes, all that is kept counted.

    What other rules and protections keep is kept even if it is more than that: a warning says so. Files that several
    snapshots share count each time.

    Args:
        budget: bytes, or such as ``"20 GB"`` (10^9 bytes each) or ``"20 GiB"``.
    """
    return _KeepWithin(bytes_of(budget, "keep_within"), budget)


def weights_after(n: int) -> Rule:
    """Of what other rules keep, leave only the latest ``n`` healthy ones as they are. Older ones keep their weights and
    lose what a resume needs (most of the bytes); never those that are pinned, nor the newest that can be resumed from.
    """
    return _WeightsAfter(positive("weights_after", n))


def keep_all() -> Rule:
    """Keep everything."""
    return _KeepAll()


def keep_when(predicate: Callable[[Record], bool]) -> Rule:
    """Keep what ``predicate(record)`` is true for, for instance ``lambda r: r.note is not None``.

    It is asked after each save about every snapshot that is there: what it says may change.
    """
    if not callable(predicate) or isinstance(predicate, (type, Rule)):
        raise ConfigurationError(f"keep_when({predicate!r}): expected a function of a Record.")
    refuse_own("keep_when", predicate)
    return _KeepWhen(predicate)


def recorded(text: str, noted: Mapping[str, Sequence[str]]) -> Rule:
    """A rule of which only its text is known here, since only the run's program has it: a function of the user's.

    Args:
        text: as the run has recorded it.
        noted: id -> why it was kept when the run judged last. What this rule will keep, nobody can tell here.
    """
    return _Recorded(text, noted)


def resolve(
    keep: Rule | Iterable[Rule] | None, monitors: Sequence[Monitor], *, at_most: int = MAX_RULES
) -> tuple[Rule, ...]:
    """What the user gave as ``keep=``, as rules whose monitors are filled in.

    Args:
        keep: a rule, several, or None for the default: the latest 2, and the best 1 if there is a monitor.
        monitors: the checkpointer's.
        at_most: how many there may be.

    Raises:
        ConfigurationError: too many, none at all, something that is no rule, or an open `keep_best` without any
            monitor.
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
    if len(rules) > at_most:
        raise ConfigurationError(f"keep= has {len(rules)} rules: expected at most {at_most}.")
    for rule in rules:
        if not isinstance(rule, Rule):
            raise ConfigurationError(
                f"keep={rule!r} is no rule: expected keep_last(n), keep_best(k), keep_all() or the like."
            )
    if all(isinstance(rule, _WeightsAfter) for rule in rules):
        raise ConfigurationError(
            f"keep={keep!r} says what older snapshots hold, not which are kept: expected a list with a further rule, "
            f"such as [keep_all(), {rules[0]!r}]."
        )
    return tuple(rule.bind(monitors) for rule in rules)


def with_best(trigger: Trigger, rules: tuple[Rule, ...], monitor: Monitor) -> tuple[Trigger, tuple[Rule, ...]]:
    """The same, so that what is the best by ``monitor`` is saved and kept in any case."""
    saves, keeps = on_best(monitor), keep_best(1, monitor)
    if not trigger.fires_with(saves):
        trigger = trigger | saves
    if not _keeps_best(rules, monitor):
        rules = (*rules, keeps)
    return trigger, rules


def best_of(records: Iterable[Record], monitor: Monitor) -> Record | None:
    """The record with the best finite value; of equal ones the earliest; None if no record has one.

    One that isn't healthy, of an abandoned line, or of another run is none.
    """
    present = [record for record in records if record.own and record.healthy and not record.line]
    return next(iter(_ranked(sorted(present, key=lambda one: (one.sequence, one.id)), monitor, 1)), None)


def promised(trigger: Trigger, rules: Sequence[Rule], monitors: Iterable[Monitor]) -> tuple[Monitor, ...]:
    """The monitors whose best value is saved whenever it is measured, and kept as long as it is the best."""
    return tuple(one for one in monitors if trigger.fires_with(on_best(one)) and _keeps_best(rules, one))


def _keeps_best(rules: Sequence[Rule], monitor: Monitor) -> bool:
    return any(isinstance(rule, _KeepBest | _KeepAll) and rule.monitors in ((), (monitor,)) for rule in rules)


def _ranked(records: Sequence[Record], monitor: Monitor, k: int) -> list[Record]:
    """The ``k`` best, best first; of equal ones the earlier comes first."""
    sign, metric = 1.0 if monitor.mode == "min" else -1.0, monitor.metric
    valued = [
        (sign * to_float(record.metrics[metric], metric), place)
        for place, record in enumerate(records)
        if metric in record.metrics
    ]
    finite = [one for one in valued if math.isfinite(one[0])]
    return [records[place] for _, place in heapq.nsmallest(k, finite)]


@dataclass(frozen=True, slots=True)
class _KeepLast(Rule):
    forgets: ClassVar[bool] = True
    n: int

    def __call__(self, records: Sequence[Record]) -> Kept:
        return dict.fromkeys([record.id for record in records[-self.n :]], repr(self))

    @property
    def words(self) -> str:
        return "the newest" if self.n == 1 else f"the newest {self.n}"

    def __repr__(self) -> str:
        return f"keep_last({self.n})"


@dataclass(frozen=True, slots=True)
class _KeepBest(Rule):
    forgets: ClassVar[bool] = True
    k: int
    monitor: Monitor | str | None

    def __call__(self, records: Sequence[Record]) -> Kept:
        monitor = self._found(())
        ranked = enumerate(_ranked(records, monitor, self.k), start=1)
        first, last = f"best {monitor.metric} (rank ", f" of {self.k})"
        return {record.id: f"{first}{rank}{last}" for rank, record in ranked}

    @property
    def monitors(self) -> tuple[Monitor, ...]:
        return (self._found(()),)

    @property
    def words(self) -> str:
        monitor = self._found(())
        return f"the {f'{self.k} ' if self.k > 1 else ''}best by {monitor.metric} ({monitor.mode})"

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
    stands: ClassVar[bool] = True
    n: int

    def __call__(self, records: Sequence[Record]) -> Kept:
        kept: dict[str, str] = {}
        reached: set[int] = set()
        for record in records:
            multiple = record.progress.step // self.n
            if multiple and multiple not in reached:
                reached.add(multiple)
                kept[record.id] = f"{self!r}: first at or after step {multiple * self.n}"
        return kept

    @property
    def words(self) -> str:
        return f"the first at or after every {self.n} steps"

    def __repr__(self) -> str:
        return f"keep_every_steps({self.n})"


@dataclass(frozen=True, slots=True)
class _KeepLogSpaced(Rule):
    stands: ClassVar[bool] = True
    base: float

    def __call__(self, records: Sequence[Record]) -> Kept:
        kept: dict[str, str] = {}
        reached: set[int] = set()
        begins = ends = 1  # of the steps that have the same power as the last one that was asked for
        for record in records:
            step = record.progress.step
            if begins <= step < ends or not step:
                continue
            power = self._power(step)
            begins, ends = math.ceil(self.base**power), math.ceil(self.base ** (power + 1))
            if power not in reached:
                reached.add(power)
                kept[record.id] = f"{self!r}: first at or after step {begins}"
        return kept

    def _power(self, step: int) -> int:
        """The largest whole number that the base can be raised to without passing ``step``."""
        power = int(math.log(step, self.base))  # rounded: it may be one too many or too few
        return max(one for one in (power - 1, power, power + 1) if math.ceil(self.base**one) <= step)

    @property
    def words(self) -> str:
        return f"the first at or after step 1, {self.base:g}, {self.base**2:g}, {self.base**3:g} and so on"

    def __repr__(self) -> str:
        return f"keep_log_spaced({self.base:g})"


@dataclass(frozen=True, slots=True)
class _KeepTiers(Rule):
    forgets: ClassVar[bool] = True
    tiers: tuple[tuple[float, int], ...]

    def __call__(self, records: Sequence[Record]) -> Kept:
        kept: dict[str, str] = {}
        for length, n in self.tiers:
            intervals: set[float] = set()
            for record in reversed(records):
                interval = record.elapsed // length
                if interval in intervals:
                    continue
                if len(intervals) == n:
                    break
                intervals.add(interval)
                kept.setdefault(record.id, f"{self!r}: last of {human_seconds(length)} no. {interval + 1:.0f}")
        return kept

    @property
    def words(self) -> str:
        each = [f"each of the latest {n} times {human_seconds(length)}" for length, n in self.tiers]
        return f"the last of {' and of '.join(each)} of training"

    def __repr__(self) -> str:
        return f"keep_tiers({{{', '.join(f'{human_seconds(length)!r}: {n}' for length, n in self.tiers)}}})"


@dataclass(frozen=True, slots=True)
class _KeepWithin(Rule):
    forgets: ClassVar[bool] = True
    fills: ClassVar[bool] = True
    nbytes: int
    given: str | int = field(compare=False)
    others: tuple[int, int] = (0, 0)  # how many are kept that are not shown, and their bytes

    def __call__(self, records: Sequence[Record]) -> Kept:
        return {}

    def fill(self, records: Sequence[Record], kept: Collection[str]) -> Kept:
        left, why = self.nbytes - sum(record.size for record in records if record.id in kept), repr(self)
        found: dict[str, str] = {}
        for record in by_worth(records):
            if record.id in kept:
                continue
            left -= record.size
            if left < 0:
                break
            found[record.id] = why
        return found

    def exceeded(self, records: Sequence[Record]) -> str | None:
        total = sum(record.size for record in records)
        if total <= self.nbytes:
            return None
        count, nbytes = self.others
        return (
            f"{self!r} can't be held: {total + nbytes:,} bytes (snapshots: {len(records) + count}) are kept by other "
            "rules, by pins, or to resume from. Keep fewer, unpin some, or let weights_after(n) make older ones "
            "smaller."
        )

    def besides(self, count: int, nbytes: int) -> Rule:
        return replace(self, nbytes=self.nbytes - nbytes, others=(count, nbytes))

    @property
    def words(self) -> str:
        size = self.given if isinstance(self.given, str) else f"{self.given} bytes"
        return f"the newest, as long as all that is kept fits into {size}"

    def __repr__(self) -> str:
        return f"keep_within({self.given!r})"


@dataclass(frozen=True, slots=True)
class _WeightsAfter(Rule):
    forgets: ClassVar[bool] = True
    n: int

    def __call__(self, records: Sequence[Record]) -> Kept:
        return {}

    def demote(self, records: Sequence[Record]) -> Kept:
        first = [record for record in records if record.healthy and not record.line][-self.n :]
        spared = {record.id for record in first}
        return dict.fromkeys([record.id for record in records if record.id not in spared], repr(self))

    @property
    def words(self) -> str:
        return f"of all but the latest {self.n if self.n > 1 else 'one'} of these, the weights only"

    def __repr__(self) -> str:
        return f"weights_after({self.n})"


@dataclass(frozen=True, slots=True)
class _KeepAll(Rule):
    stands: ClassVar[bool] = True

    def __call__(self, records: Sequence[Record]) -> Kept:
        return dict.fromkeys([record.id for record in records], repr(self))

    def apart(self, records: Sequence[Record]) -> Kept:
        return self(records)

    @property
    def words(self) -> str:
        return "all"

    def __repr__(self) -> str:
        return "keep_all()"


@dataclass(frozen=True, slots=True)
class _KeepWhen(Rule):
    predicate: Callable[[Record], bool]

    def __call__(self, records: Sequence[Record]) -> Kept:
        return dict.fromkeys([record.id for record in records if self.predicate(record)], repr(self))

    def apart(self, records: Sequence[Record]) -> Kept:
        return self(records)

    @property
    def words(self) -> str:
        return f"those that {name_of(self.predicate)} is true for"

    def __repr__(self) -> str:
        return f"keep_when({name_of(self.predicate)})"


@dataclass(frozen=True, slots=True)
class _Recorded(Rule):
    text: str
    noted: Mapping[str, Sequence[str]]

    def __call__(self, records: Sequence[Record]) -> Kept:
        return {record.id: self.text for record in records if self.text in self.noted.get(record.id, ())}

    def apart(self, records: Sequence[Record]) -> Kept:
        return self(records)

    def doubts(self, records: Sequence[Record]) -> Kept:
        return {record.id: self._doubt(self.noted.get(record.id, ())) for record in records}

    def _doubt(self, noted: Sequence[str]) -> str:
        last = f" (it noted last: {', '.join(noted)})" if noted else ""
        return f"{self.text} may keep it: only the run's program can tell{last}"

    @property
    def words(self) -> str:
        return f"{self.text}, which only the run's program has"

    def __repr__(self) -> str:
        return self.text
