"""Watch: whether what is monitored is measured at all, and anything can be saved. A misspelled name must not be found
out after ten hours."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from difflib import get_close_matches

from ckpt_callbacks.engine.moment import Event, Moment
from ckpt_callbacks.engine.monitor import Monitor, is_of_validation
from ckpt_callbacks.engine.triggers import Past, Trigger
from ckpt_callbacks.errors import ConfigurationError

__all__ = ["Watch"]


class Watch:
    """Follows a fit until every monitor was measured once.

    Args:
        monitors: what is looked for.
        trigger: if it can't fire without them, their absence is an error.
        past: what was measured before a resume is not looked for.
        validates: whether the fit will validate at all. If it does, the first epoch says nothing until it has.
    """

    def __init__(self, monitors: Sequence[Monitor], trigger: Trigger, past: Past, validates: bool = True) -> None:
        self._pending = {one.metric for one in monitors if one.key not in past.best}
        self._trigger = trigger
        self._measured: set[str] = set()
        self._survived: set[str] = set()  # without these it can fire all the same
        self._told: set[str] = set()
        self._validated = not validates

    def start(self) -> list[str]:
        """What the user must know before the first batch, as sentences."""
        if self._trigger.can_fire(()):
            return []
        return [
            f"nothing that save={self._trigger!r} waits for happens in a training that is not disturbed "
            f"({self._trigger.words}): it may end, or be killed, without any snapshot. Add such as every_epochs(1), "
            "every('30m') or on_end()"
        ]

    def see(self, moment: Moment, lacks: Collection[str] = ()) -> list[str]:
        """What the user must know at this moment, as sentences; nearly always nothing.

        Args:
            moment: the present.
            lacks: the metrics that functions of the user's looked up in vain at it.

        Raises:
            ConfigurationError: an epoch has ended, and no snapshot can ever be taken.
        """
        if not moment.events:
            return []
        over = bool(moment.events & (Event.EPOCH_END | Event.FIT_END))
        validated = Event.VALIDATION_END in moment.events
        self._measured |= moment.metrics.keys()
        self._validated |= validated
        if moment.metrics:  # a function of the user's may ask for a metric only if another one is good
            self._pending |= {one for one in lacks if over or is_of_validation(one)}
        self._pending -= self._measured
        if not self._pending or not (self._validated or Event.FIT_END in moment.events):
            return []
        if Event.EPOCH_END in moment.events and self._validated:
            self._refuse_if_nothing_can_fire()
        wrong = [
            one
            for one in sorted(self._pending - self._told)
            if over or (validated and is_of_validation(one)) or self._like(one)  # others may come at the epoch's end
        ]
        self._told.update(wrong)
        return [f"{self._tell(one)} Until it is, nothing is saved or kept for its sake." for one in wrong]

    def _refuse_if_nothing_can_fire(self) -> None:
        if self._pending == self._survived:  # to ask a function of the user's once is enough
            return
        if not self._trigger.can_fire(self._pending):
            raise ConfigurationError(
                f"{self._tell(sorted(self._pending)[0])} Nothing else is told to save ({self._trigger!r}), so no "
                "snapshot would ever be taken. Give a name that is logged."
            )
        self._survived = set(self._pending)

    def _like(self, metric: str) -> Collection[str]:
        folded = {name.lower(): name for name in sorted(self._measured)}
        return [folded[one] for one in get_close_matches(metric.lower(), folded, n=3)]

    def _tell(self, metric: str) -> str:
        like = self._like(metric)
        meant = f" Did you mean {' or '.join(map(repr, like))}?" if like else ""
        measured = ", ".join(map(repr, sorted(self._measured))) or "nothing"
        return f"{metric!r} was not measured; measured was: {measured}.{meant}"
