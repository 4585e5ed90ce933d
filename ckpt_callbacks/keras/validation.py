"""The validation data of a fit: how often they were iterated, and what they remember from one time to the next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ckpt_callbacks.keras import private
from ckpt_callbacks.keras.sources import Iterations, Memory

__all__ = ["Validation"]


class Validation:
    """What a validation leaves behind in its data.

    Args:
        data: as passed to fit.
    """

    def __init__(self, data: Any) -> None:
        self._data = data
        self._memory = Memory(private.parts_of(data))
        self._iterations: Iterations | None = None
        self._before = 0  # how often earlier processes iterated them

    def begins(self, iterator: Any) -> None:
        """They are about to be iterated; what earlier processes did with them is made up for.

        Args:
            iterator: Keras' own, which fit makes for its first validation and keeps.
        """
        if iterator is None or self._iterations is not None:
            return
        self._iterations = Iterations(iterator)
        if self._iterations.shuffles:
            self._iterations.count()
            self._iterations.make_up(self._before)

    def capture(self) -> dict[str, Any]:
        """How often they were iterated, and what they remember."""
        begun = self._before if self._iterations is None else self._iterations.begun
        return {"iterations": begun, "memory": self._memory.capture()}

    def put_back(self, saved: Mapping[str, Any]) -> None:
        """Set what ``capture`` gave."""
        self._before = saved["iterations"]
        self._memory.put_back(saved["memory"])

    def complete(self) -> None:
        """Leave the data as a fit left them that has ended: another fit may use them next."""
        if self._iterations is None:
            private.iterate(self._data, self._before)
