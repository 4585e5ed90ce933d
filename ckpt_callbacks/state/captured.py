"""Captured: the state of a training at one moment, as an adapter hands it over."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Captured"]


@dataclass(frozen=True)
class Captured:
    """What an adapter hands over at a boundary.

    Attributes:
        weights: the model's tensors under the framework's own names.
        rest: everything else that resume needs, as a tree of plain values and tensors.
        optional: paths in ``rest`` that resume does not need (hyperparameters): what can't be stored there is kept
            as its repr.
        missing: parts that resume would need and that can't be captured -> why.
        data: how a resume will reach the place in the data, in a few words.
        trained: the names of weights that training changes; None for all. In others (masks) infinities are fine, and
            that they stand still or move (running statistics) says nothing.
        frozen: the names of weights that aren't trained: they are written once.
        steady: gives address -> tensor, of those that training should leave alone until the adapter calls `fence`:
            they may be copied meanwhile. For the boundary only.
    """

    weights: Mapping[str, Any]
    rest: Mapping[str, Any]
    optional: tuple[str, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)
    data: str = "in place"
    trained: Set[str] | None = None
    frozen: Set[str] = frozenset()
    steady: Callable[[], Mapping[int, Any]] = dict

    @property
    def watched(self) -> Set[str]:
        """The names of the weights that training changes."""
        return self.trained if self.trained is not None else self.weights.keys()

    @property
    def changing(self) -> Mapping[str, Any]:
        """The weights but for those that are said to stay the same: these may be most, and far from this processor."""
        return {name: value for name, value in self.weights.items() if name not in self.frozen}
