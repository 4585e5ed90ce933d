"""How long nothing can be due, so that a step costs nothing until then."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["NONE", "Rest"]


@dataclass(frozen=True, slots=True)
class Rest:
    """As long as nothing happens and nothing is measured, no snapshot can be due before one of these is reached.

    Attributes:
        steps: further optimizer steps.
        batches: further batches.
        seconds: of training.
    """

    steps: float = math.inf
    batches: float = math.inf
    seconds: float = math.inf

    def __and__(self, other: Rest) -> Rest:
        """Until the first of both ends."""
        return Rest(min(self.steps, other.steps), min(self.batches, other.batches), min(self.seconds, other.seconds))


NONE = Rest(0, 0, 0)
"""Something may be due at the very next moment."""
