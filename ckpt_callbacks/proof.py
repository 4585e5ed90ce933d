"""The proof of a resume: steps that are computed again are compared, bit for bit, with what they gave before."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass

from ckpt_callbacks.store import Step

__all__ = ["Outcome", "Proof"]


@dataclass(frozen=True)
class Outcome:
    """What comparing the steps gave.

    Attributes:
        identical: steps that gave the same bits.
        unknown: steps computed again of which there was no record (any more).
        differs: the first step that gave other bits: before, and now; None if there is none.
    """

    identical: int
    unknown: int = 0
    differs: tuple[Step, Step] | None = None

    def __str__(self) -> str:
        """Give the line that the user sees."""
        if self.differs is not None:
            before, now = self.differs
            losses = f" (loss {before.loss!r} before the crash, {now.loss!r} now)" if now.loss == now.loss else ""
            return (
                f"resume diverged: step {now.step} is the first that differs{losses}; "
                f"{_steps(self.identical)} before it {_were(self.identical)} identical"
            )
        if not self.identical:
            return "resume not verified: none of the steps on record was computed again"
        unknown = f" ({self.unknown} more had left no record)" if self.unknown else ""
        return f"resume verified: {_steps(self.identical)} identical{unknown}"


class Proof:
    """Waits for steps that are on record and compares them; thread-safe, since a framework may report from threads.

    Args:
        expected: the steps on record after the snapshot, by their count of batches.
    """

    def __init__(self, expected: Mapping[int, Step]) -> None:
        self._expected = dict(expected)
        self._end = max(expected, default=0)
        self._identical = self._unknown = 0
        self._turn = threading.Lock()

    @property
    def waits(self) -> bool:
        """Whether steps are still to be compared."""
        return self._end > 0

    def saw(self, step: Step) -> Outcome | None:
        """Compare a step; the outcome, once: when a step differs, or all on record were passed."""
        with self._turn:
            if not self._end:
                return None
            before = self._expected.pop(step.batches, None)
            if before is None:
                self._unknown += step.batches <= self._end
            elif before.fingerprint == step.fingerprint:
                self._identical += 1
            else:
                return self._conclude((before, step))
            return self._conclude() if step.batches >= self._end or not self._expected else None

    def outcome(self) -> Outcome | None:
        """The outcome so far, if training ends before all on record was passed; None if nothing was compared."""
        with self._turn:
            return self._conclude() if self._end and self._identical else None

    def _conclude(self, differs: tuple[Step, Step] | None = None) -> Outcome:
        self._end = 0
        return Outcome(self._identical, self._unknown, differs)


def _steps(count: int) -> str:
    return f"{count} step" if count == 1 else f"{count} steps"


def _were(count: int) -> str:
    return "was" if count == 1 else "were"
