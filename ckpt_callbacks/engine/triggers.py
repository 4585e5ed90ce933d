"""When to save: small callables over a moment and the past, joined by ``|`` and narrowed by ``&``.

A trigger is given the present `Moment` and the `Past` and returns the reasons why a snapshot is due; none means that it
isn't. Periodic triggers ask whether a multiple lies between the last moment and this one, so they need no memory but
where training stood then: nothing is missed when several steps pass at once, and nothing is done twice after a resume.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from ckpt_callbacks.engine import rest as rests
from ckpt_callbacks.engine.arguments import name_of, positive, refuse_own
from ckpt_callbacks.engine.moment import Event, Moment, Progress
from ckpt_callbacks.engine.monitor import Monitor, expression, find, named
from ckpt_callbacks.engine.rest import Rest
from ckpt_callbacks.engine.units import human_seconds, seconds_of
from ckpt_callbacks.errors import ConfigurationError

__all__ = [
    "Past",
    "Trigger",
    "every",
    "every_batches",
    "every_epochs",
    "every_steps",
    "on_best",
    "on_end",
    "on_exception",
    "on_signal",
    "resolve",
    "when",
]

Reasons = tuple[str, ...]
Answer = tuple[Reasons, frozenset[str]]

_NOTHING: frozenset[str] = frozenset()  # made once: answers are made at each boundary
Predicate = Callable[[Moment], bool]


@dataclass(frozen=True, slots=True)
class Past:
    """Everything that decisions remember; it travels inside each snapshot.

    Attributes:
        seen: where training stood at the last moment.
        elapsed: seconds trained by then.
        best: best value so far of each monitor, by its key.
    """

    seen: Progress = field(default_factory=Progress)
    elapsed: float = 0.0
    best: Mapping[str, float] = field(default_factory=dict)

    def passed(self, step: int, batches: int, elapsed: float) -> Past:
        """The same after moments of this epoch at which nothing was decided, the last of them here (see `Rest`)."""
        batch = self.seen.batch + batches - self.seen.batches
        return Past(Progress(step, self.seen.epoch, batch, batches), elapsed, self.best)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"seen": self.seen.as_dict(), "elapsed": self.elapsed, "best": dict(self.best)}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Past:
        """The inverse of `as_dict`; what is missing was never seen, and only a finite value is a best."""
        seen = Progress.from_dict(plain["seen"]) if "seen" in plain else Progress()
        best = {key: float(value) for key, value in plain.get("best", {}).items()}
        finite = {key: value for key, value in best.items() if math.isfinite(value)}
        return cls(seen, float(plain.get("elapsed", 0.0)), finite)


class Trigger:
    """Base of all triggers; a subclass defines `__call__`. Its repr is the expression that makes it."""

    __slots__ = ()

    def __call__(self, moment: Moment, past: Past) -> Reasons:
        """Why a snapshot is due now; empty if none is."""
        raise TypeError(f"{type(self).__name__} must define __call__(moment, past) and return a tuple of reasons")

    def rest(self, moment: Moment) -> Rest:
        """How long after ``moment`` it can't fire unless something happens; by default it wants to see every moment."""
        return rests.NONE

    @property
    def monitors(self) -> tuple[Monitor, ...]:
        """The monitors whose best value it asks for."""
        return ()

    @property
    def signals(self) -> Mapping[str, bool]:
        """The signals that it waits for -> whether the process shall leave then."""
        return {}

    @property
    def on_failure(self) -> bool:
        """Whether it may fire because of an exception."""
        return False

    def can_fire(self, unmeasured: Collection[str]) -> bool:
        """Whether it fires in an ordinary training if these metrics are never measured."""
        return True

    def fires_with(self, other: Trigger) -> bool:
        """Whether it fires whenever another one does, as far as it can tell."""
        return self == other

    def ask(self, moment: Moment, past: Past) -> Answer:
        """Its reasons, and the metrics that functions of the user's looked up in vain: each of them is called once."""
        return self(moment, past), _NOTHING

    @property
    def words(self) -> str:
        """When it fires, as a sentence would say it."""
        return repr(self)

    @property
    def sentences(self) -> tuple[str, ...]:
        """The words of each part that fires on its own."""
        return (self.words,)

    def bind(self, monitors: Sequence[Monitor]) -> Trigger:
        """The same trigger with every open ``monitor=None`` filled in by the first of ``monitors``."""
        return self

    def __or__(self, other: Trigger | Predicate) -> Trigger:
        """Fire when either does."""
        return _Any((self, as_trigger(other)))

    def __ror__(self, other: Trigger | Predicate) -> Trigger:
        """Fire when either does."""
        return _Any((as_trigger(other), self))

    def __and__(self, other: Trigger | Predicate) -> Trigger:
        """Fire when both do; the second is asked only if the first fires."""
        return _All((self, as_trigger(other)))

    def __rand__(self, other: Trigger | Predicate) -> Trigger:
        """Fire when both do; the second is asked only if the first fires."""
        return _All((as_trigger(other), self))

    def __bool__(self) -> bool:
        """Refuse: ``a or b`` would silently be ``a`` alone."""
        raise ConfigurationError(
            f"{self!r} is neither true nor false: join triggers with | and &, not with or and and."
        )


def every_steps(n: int) -> Trigger:
    """Fire whenever a multiple of ``n`` optimizer steps is reached or passed."""
    return _Every("step", positive("every_steps", n))


def every_batches(n: int) -> Trigger:
    """Fire whenever a multiple of ``n`` batches (of the whole run) is reached or passed."""
    return _Every("batches", positive("every_batches", n))


def every_epochs(n: int) -> Trigger:
    """Fire at the end of every ``n``-th epoch."""
    return _Every("epoch", positive("every_epochs", n))


def every(interval: str | float | timedelta) -> Trigger:
    """Fire whenever a multiple of ``interval`` of training time is passed; the interval runs on over resumes.

    Args:
        interval: ``"30m"``, ``"1h30m"``, ``"2d"``, ``"90s"``; or seconds; or a timedelta.
    """
    return _EveryInterval(seconds_of(interval, "every"), interval)


def on_best(monitor: str | Monitor | None = None) -> Trigger:
    """Fire when the monitored metric was measured and is the best so far. Default: the checkpointer's own monitor."""
    return _OnBest(named("on_best", monitor))


def on_end() -> Trigger:
    """Fire when training ends."""
    return _On(Event.FIT_END, "on_end", "end of fit")


def on_exception() -> Trigger:
    """Fire when an exception ends training: out of memory, unreadable data, an error in a hook.

    What an exception leaves behind is half of a step, and nothing to carry on from exactly. So the state of a clean
    boundary is held in memory, copied there as often as that costs next to nothing (one percent of the time: a small
    model every second or two, a gigabyte every minute or so), and what is held is saved. It is held nowhere else: a
    process that is killed takes it along.
    """
    return _On(Event.EXCEPTION, "on_exception", "exception")


def on_signal(*signals: str, leave: bool = True) -> Trigger:
    """Fire when the process got a signal, at the next clean boundary. While a fit runs, these signals are caught.

    Args:
        signals: their names, such as ``"SIGUSR1"``. Default: SIGTERM (schedulers, clouds, `kill`), SIGUSR1 (SLURM's
            ``--signal``) and SIGINT (Ctrl-C; a second one is obeyed at once).
        leave: then do what the signal would have done without us, which mostly ends the process; False goes on
            training.
    """
    for name in signals:
        if not isinstance(name, str) or not re.fullmatch("SIG[A-Z0-9+]+", name) or name in ("SIGKILL", "SIGSTOP"):
            raise ConfigurationError(
                f"on_signal({name!r}): expected the name of a signal that can be caught, such as 'SIGTERM'."
            )
    return _OnSignal(tuple(dict.fromkeys(signals)), leave)


def when(predicate: Predicate) -> Trigger:
    """Fire when ``predicate(moment)`` is true, for instance ``lambda m: m.metrics["val_acc"] > 0.9``.

    At moments at which a metric was not measured that the predicate looks up, it is false. It is asked once at each
    boundary. What it says should depend on the moment only: after a resume it is asked about some boundaries again,
    and where a metric is missing it may be asked what it says without any.
    """
    if not callable(predicate) or isinstance(predicate, (type, Trigger)):
        raise ConfigurationError(f"when({predicate!r}): expected a function of a Moment.")
    refuse_own("when", predicate)
    return _When(predicate)


def as_trigger(given: Trigger | Predicate) -> Trigger:
    """A trigger as it is; a function of a moment as `when` of it."""
    if isinstance(given, Trigger):
        return given
    if isinstance(given, type) or not callable(given):
        raise ConfigurationError(
            f"{given!r} is no trigger: expected every_steps(n), every_epochs(n), on_best() or the like, "
            "or a function of a Moment."
        )
    return when(given)


def resolve(save: Trigger | Predicate | Iterable[Trigger | Predicate] | None, monitors: Sequence[Monitor]) -> Trigger:
    """What the user gave as ``save=``, as one trigger whose monitors are filled in.

    Args:
        save: a trigger, several (any of them fires), a function of a moment, or None for the default: every epoch, on
            best if there is a monitor, at the end, on an exception, on a signal.
        monitors: the checkpointer's.

    Raises:
        ConfigurationError: no trigger at all, something that is none, or an open `on_best` without any monitor.
    """
    if save is None:
        best: tuple[Trigger, ...] = (on_best(),) if monitors else ()
        chosen: Trigger = _Any((every_epochs(1), *best, on_end(), on_exception(), on_signal()))
    elif isinstance(save, str) or not isinstance(save, Iterable):
        chosen = as_trigger(save)
    else:
        parts = tuple(as_trigger(one) for one in save)
        if not parts:
            raise ConfigurationError(
                f"save={save!r} never saves: expected a trigger, several, or None for the default."
            )
        chosen = _Any(parts) if len(parts) > 1 else parts[0]
    return chosen.bind(monitors)


DEFAULT_SIGNALS = ("SIGTERM", "SIGUSR1", "SIGINT")

_NAME_OF = {"step": "every_steps", "batches": "every_batches", "epoch": "every_epochs"}


@dataclass(frozen=True, slots=True)
class _Every(Trigger):
    count: str
    n: int

    def __call__(self, moment: Moment, past: Past) -> Reasons:
        now, before = getattr(moment.progress, self.count), getattr(past.seen, self.count)
        return (repr(self),) if now // self.n > before // self.n else ()

    def rest(self, moment: Moment) -> Rest:
        left = self.n - getattr(moment.progress, self.count) % self.n
        if self.count == "step":
            return Rest(steps=left)
        return Rest(batches=left) if self.count == "batches" else Rest()  # that an epoch ends is an event

    @property
    def words(self) -> str:
        what = {"step": "optimizer step", "batches": "batch", "epoch": "epoch"}[self.count]
        plural = f"{what}es" if what.endswith("ch") and what != "epoch" else f"{what}s"
        return f"every {what}" if self.n == 1 else f"every {self.n} {plural}"

    def __repr__(self) -> str:
        return f"{_NAME_OF[self.count]}({self.n})"


@dataclass(frozen=True, slots=True)
class _EveryInterval(Trigger):
    seconds: float
    given: str | float | timedelta = field(compare=False)

    def __call__(self, moment: Moment, past: Past) -> Reasons:
        return (repr(self),) if moment.elapsed // self.seconds > past.elapsed // self.seconds else ()

    def rest(self, moment: Moment) -> Rest:
        return Rest(seconds=self.seconds - moment.elapsed % self.seconds)

    @property
    def words(self) -> str:
        return f"every {human_seconds(self.seconds)} of training"

    def __repr__(self) -> str:
        return f"every({self.given!r})"


@dataclass(frozen=True, slots=True)
class _OnBest(Trigger):
    monitor: Monitor | str | None

    def __call__(self, moment: Moment, past: Past) -> Reasons:
        monitor = self._found(())
        value = monitor.value(moment.metrics) if moment.metrics and moment.healthy else None
        best = past.best.get(monitor.key)
        if value is None or not monitor.improves(value, best):
            return ()
        return (f"best {monitor.metric} {value:.6g}" + (f" (was {best:.6g})" if best is not None else ""),)

    def rest(self, moment: Moment) -> Rest:
        return Rest()

    def can_fire(self, unmeasured: Collection[str]) -> bool:
        return self._found(()).metric not in unmeasured

    @property
    def monitors(self) -> tuple[Monitor, ...]:
        return (self._found(()),)

    def bind(self, monitors: Sequence[Monitor]) -> Trigger:
        return _OnBest(self._found(monitors))

    def _found(self, monitors: Sequence[Monitor]) -> Monitor:
        if isinstance(self.monitor, Monitor):
            return self.monitor
        monitor = find(self.monitor, monitors)
        if monitor is None:
            raise ConfigurationError("on_best() needs a metric: pass monitor= to the callback, or on_best('val_loss').")
        return monitor

    @property
    def words(self) -> str:
        monitor = self._found(())
        delta = f" by more than {monitor.min_delta:g}{' of the best' if monitor.relative else ''}"
        return f"when {monitor.metric} is the best so far ({monitor.mode}){delta if monitor.min_delta else ''}"

    def __repr__(self) -> str:
        return f"on_best({expression(self.monitor)})"


@dataclass(frozen=True, slots=True)
class _On(Trigger):
    event: Event
    name: str
    reason: str

    def __call__(self, moment: Moment, past: Past) -> Reasons:
        return (self.reason,) if self.event in moment.events else ()

    def rest(self, moment: Moment) -> Rest:
        return Rest()

    @property
    def on_failure(self) -> bool:
        return self.event is Event.EXCEPTION

    def can_fire(self, unmeasured: Collection[str]) -> bool:
        return self.event is Event.FIT_END

    @property
    def words(self) -> str:
        if self.event is Event.FIT_END:
            return "when training ends"
        return "when an exception ends training: the newest state that is held in memory"

    def __repr__(self) -> str:
        return f"{self.name}()"


@dataclass(frozen=True, slots=True)
class _OnSignal(Trigger):
    names: tuple[str, ...]
    leave: bool

    def __call__(self, moment: Moment, past: Past) -> Reasons:
        if Event.SIGNAL not in moment.events or (moment.signal is not None and moment.signal not in self.signals):
            return ()
        return (f"signal {moment.signal}" if moment.signal else "signal",)

    def rest(self, moment: Moment) -> Rest:
        return Rest()

    @property
    def signals(self) -> Mapping[str, bool]:
        return dict.fromkeys(self.names or DEFAULT_SIGNALS, self.leave)

    def can_fire(self, unmeasured: Collection[str]) -> bool:
        return False

    @property
    def words(self) -> str:
        return f"on {' or '.join(self.signals)}, {'and then leave' if self.leave else 'and go on'}"

    def __repr__(self) -> str:
        arguments = [*map(repr, self.names), *([] if self.leave else ["leave=False"])]
        return f"on_signal({', '.join(arguments)})"


class _UnmeasuredError(KeyError):
    """A predicate looked up a metric that was not measured since the last moment."""


class _Measured(dict[str, Any]):
    """What was measured, as a predicate sees it. Notes what is looked up in vain."""

    def __init__(self, metrics: Mapping[str, Any]) -> None:
        super().__init__(metrics)
        self.lacks: set[str] = set()

    def __missing__(self, name: str) -> Any:
        self.lacks.add(str(name))
        raise _UnmeasuredError(name)

    def __contains__(self, name: object) -> bool:
        found = super().__contains__(name)
        if not found:
            self.lacks.add(str(name))
        return found

    def get(self, name: str, default: Any = None) -> Any:
        _ = name in self  # which notes it
        return super().get(name, default)


class _NoMetrics:
    """What a predicate sees where nothing was measured: names can be looked up, and nothing else be asked."""

    __iter__ = None  # else what has `__getitem__` can be iterated

    def __init__(self) -> None:
        self._none = _Measured({})
        self.lacks = self._none.lacks
        self.get = self._none.get

    def __getitem__(self, name: str) -> Any:
        return self._none[name]

    def __contains__(self, name: object) -> bool:
        return name in self._none

    def __bool__(self) -> bool:
        raise TypeError


class _MetricsOnly:
    """A moment of which nothing can be seen but that no metric was measured."""

    def __init__(self) -> None:
        self.metrics = _NoMetrics()


@dataclass(frozen=True, slots=True)
class _When(Trigger):
    predicate: Predicate

    def __call__(self, moment: Moment, past: Past) -> Reasons:
        return self.ask(moment, past)[0]

    def ask(self, moment: Moment, past: Past) -> Answer:
        metrics = _Measured(moment.metrics)
        try:
            fires = self.predicate(replace(moment, metrics=metrics))
        except _UnmeasuredError:
            fires = False
        return (repr(self),) if fires else (), frozenset(metrics.lacks)

    def can_fire(self, unmeasured: Collection[str]) -> bool:
        """Not if all that it looks at are some of them, and it is false then."""
        if not unmeasured:
            return True
        nothing = _MetricsOnly()
        try:
            fires = self.predicate(nothing)  # type: ignore[arg-type]
        except _UnmeasuredError:
            fires = False
        except Exception:  # noqa: BLE001 - it asks for something else, of which nothing is known
            return True
        lacks = nothing.metrics.lacks
        return bool(fires) or not lacks or not lacks <= set(unmeasured)

    @property
    def words(self) -> str:
        return f"when {name_of(self.predicate)} is true"

    def __repr__(self) -> str:
        return f"when({name_of(self.predicate)})"


class _Composite(Trigger):
    __slots__ = ("parts",)

    def __init__(self, parts: tuple[Trigger, ...]) -> None:
        # (a | b) | c is one trigger of three parts: flat is faster, and reads better.
        self.parts = tuple(inner for part in parts for inner in self._flat(part))

    def _flat(self, part: Trigger) -> tuple[Trigger, ...]:
        return part.parts if isinstance(part, _Composite) and type(part) is type(self) else (part,)

    @property
    def monitors(self) -> tuple[Monitor, ...]:
        return tuple(monitor for part in self.parts for monitor in part.monitors)

    def __call__(self, moment: Moment, past: Past) -> Reasons:
        return self.ask(moment, past)[0]

    @property
    def signals(self) -> Mapping[str, bool]:
        joined: dict[str, bool] = {}
        for part in self.parts:
            for name, leave in part.signals.items():
                joined[name] = joined.get(name, False) or leave
        return joined

    @property
    def on_failure(self) -> bool:
        return any(part.on_failure for part in self.parts)

    def bind(self, monitors: Sequence[Monitor]) -> Trigger:
        return type(self)(tuple(part.bind(monitors) for part in self.parts))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Composite) and type(self) is type(other) and self.parts == other.parts

    def __hash__(self) -> int:
        return hash((type(self), self.parts))


class _Any(_Composite):
    __slots__ = ()

    def ask(self, moment: Moment, past: Past) -> Answer:
        reasons, lacks = Reasons(), _NOTHING
        for part in self.parts:
            why, unmeasured = part.ask(moment, past)
            reasons += why
            lacks = lacks | unmeasured if unmeasured else lacks
        return reasons, lacks

    def rest(self, moment: Moment) -> Rest:
        rest = Rest()
        for part in self.parts:
            rest &= part.rest(moment)
        return rest

    def can_fire(self, unmeasured: Collection[str]) -> bool:
        return any(part.can_fire(unmeasured) for part in self.parts)

    def fires_with(self, other: Trigger) -> bool:
        return any(part.fires_with(other) for part in self.parts)

    @property
    def words(self) -> str:
        return "; ".join(self.sentences)

    @property
    def sentences(self) -> tuple[str, ...]:
        return tuple(sentence for part in self.parts for sentence in part.sentences)

    def __repr__(self) -> str:
        return f"({' | '.join(map(repr, self.parts))})"


class _All(_Composite):
    __slots__ = ()

    def ask(self, moment: Moment, past: Past) -> Answer:
        reasons, lacks = Reasons(), _NOTHING
        for part in self.parts:
            why, unmeasured = part.ask(moment, past)
            reasons += why
            lacks = lacks | unmeasured if unmeasured else lacks
            if not why:
                return (), lacks
        return reasons, lacks

    def rest(self, moment: Moment) -> Rest:
        return self.parts[0].rest(moment)  # while it can't fire, the others are not asked

    def can_fire(self, unmeasured: Collection[str]) -> bool:
        return all(part.can_fire(unmeasured) for part in self.parts)

    @property
    def words(self) -> str:
        return ", but only ".join(part.words for part in self.parts)

    def __repr__(self) -> str:
        return f"({' & '.join(map(repr, self.parts))})"
