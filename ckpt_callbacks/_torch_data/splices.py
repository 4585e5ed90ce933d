"""The random states between two draws of a source, where something else drew in between.

A source (a sampler, or a data set that is loaded in this process) draws from generators that training draws from as
well. To draw again what it drew, each of its draws must find the generators as they were. As long as nothing else moves
them, that follows from where they stood at the beginning; where something did, their state is kept: a splice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import numpy as np
import torch

from ckpt_callbacks.state import random_state

__all__ = ["MAX_SPLICES", "Splices", "same"]

T = TypeVar("T")

MAX_SPLICES = 1024
"""How many splices are kept of one iteration; some kilobytes each."""

ATTENTIVE = 16
"""How many draws are watched for every global generator; later on, only for those that it was seen to draw from."""

GLOBAL = ("python", "numpy", "torch", "scripts")


class Splices:
    """Watches the draws of one iteration of a source. Draws nothing itself.

    Args:
        holder: what may hold generators of the source's own.
        everywhere: watch the global generators as the source goes on; else in its first draw only.
        kept: splices of an earlier process: each is put back before its draw.
        done: how many draws were made already.

    Attributes:
        kept: number of a draw -> the states that it must find.
        done: how many draws were made.
        lost: why drawing again would not be exact, or "".
    """

    def __init__(self, holder: Any, everywhere: bool, kept: Mapping[int, Any] | None = None, done: int = 0) -> None:
        self.done, self.lost = done, ""
        self.kept: dict[int, dict[str, Any]] = {number: dict(states) for number, states in (kept or {}).items()}
        self._again = dict(self.kept)  # still to be put back
        self._everywhere = everywhere
        self._own = {f"own:{path}": generator for path, generator in random_state.generators(holder)}
        self._left = {name: self._read(name) for name in (*GLOBAL, *self._own)}  # where the last draw left them
        self._nothing_to_do = not (self._again or everywhere or self._own)  # after the first draw
        self._as_it_goes: set[str] = set()  # the global generators that a draw after the first has moved

    def draw(self, function: Callable[[], T]) -> T:
        """Let the source draw."""
        number, self.done = self.done, self.done + 1
        if number and self._nothing_to_do:
            return function()
        for name, state in self._again.pop(number, {}).items():
            self._write(name, state)
        before = {name: self._read(name) for name in self._watched(number)}
        drawn = function()
        for name, state in before.items():
            self._compare(number, name, state, self._read(name))
        return drawn

    def _watched(self, number: int) -> Iterable[str]:
        """The generators to look at in this draw; late beginners are found at the powers of two."""
        if number == 0 or (self._everywhere and (number < ATTENTIVE or number & (number - 1) == 0)):
            return (*GLOBAL, *self._own)
        return (*self._as_it_goes, *self._own) if self._everywhere else self._own

    def _compare(self, number: int, name: str, before: Any, after: Any) -> None:
        """Keep the state before a draw that moved a generator, if something else had moved it since the last one."""
        if same(before, after):
            return
        late = number >= ATTENTIVE and name in GLOBAL and name not in self._as_it_goes
        if late:
            self.lost = "it draws from a global random generator now and then"
        elif not same(before, self._left[name]):
            self._keep(number, name, before)
        self._left[name] = after
        if number and name in GLOBAL:
            self._as_it_goes.add(name)

    def _keep(self, number: int, name: str, state: Any) -> None:
        if number in self.kept or len(self.kept) < MAX_SPLICES:
            self.kept.setdefault(number, {})[name] = state
        else:
            self.lost = "it draws in every batch from a random generator that training draws from as well"

    def _read(self, name: str) -> Any:
        if name in self._own:
            return random_state.read_generator(self._own[name])
        return random_state.capture((name,))

    def _write(self, name: str, state: Any) -> None:
        if name in GLOBAL:
            random_state.restore(state)
        elif name in self._own:
            random_state.write_generator(self._own[name], state)


def same(a: Any, b: Any) -> bool:
    """Whether two states are equal, bit for bit."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, torch.Tensor):
        return bool(torch.equal(a, b))
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)
