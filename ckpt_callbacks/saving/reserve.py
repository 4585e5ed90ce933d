"""The reserve: how often a state is copied aside in case that training fails, so that it costs next to nothing."""

from __future__ import annotations

__all__ = ["Reserve"]

SHARE = 0.01
"""The share of training's time that copies in reserve may take."""

AT_ONCE = 0.5
"""Seconds that they may take beforehand: a small state is copied at each of the first boundaries."""

SPEED = 2e9
"""Bytes a second, at least, that are copied beside training: time that nobody sees, and is counted all the same."""


SMALL = 64 << 20
"""Bytes of which there may be two copies at a time, one that is being written and one in reserve."""


class Reserve:
    """Tells when the next copy may be made, by what the ones before have cost.

    Args:
        began: when training began, on the monotonic clock.
        nbytes: about how large the state is.
    """

    def __init__(self, began: float, nbytes: int = 0) -> None:
        self._began, self._spent, self._last = began, 0.0, nbytes / SPEED
        self._nbytes = nbytes

    @property
    def due(self) -> float:
        """When the next copy may be made, on the monotonic clock: it is expected to cost what the last one did."""
        return self._began + max(0.0, self._spent + self._last - AT_ONCE) / SHARE

    def may(self, now: float, busy: bool) -> bool:
        """Whether to copy now; ``busy``: the last snapshot is still being written, from memory of the same size."""
        return now >= self.due and (not busy or self._nbytes <= SMALL)

    def took(self, seconds: float, nbytes: int) -> None:
        """A copy was made: training stood still for so long, and so much was copied in all."""
        self._last = seconds + nbytes / SPEED
        self._spent += self._last
        self._nbytes = nbytes
