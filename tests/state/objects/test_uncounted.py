"""Which code may change a tensor without torch's count telling."""

from __future__ import annotations

import functools
import re
from typing import Any

import pytest
import torch

from ckpt_callbacks.state.objects.uncounted import held_by, is_countable, may_go_uncounted

RUNS = re.compile(r"step|__call__")
TRUSTED = ("torch",)


def clamp(weight: torch.Tensor) -> None:
    weight.data.clamp_(0, 1)


class Plain:
    def __init__(self) -> None:
        self.data = [1]

    def step(self) -> Any:
        return self.data

    def report(self, weight: torch.Tensor) -> Any:
        return weight.numpy()


class Calls(Plain):
    def step(self) -> Any:
        return self.report(torch.ones(1))


class Names(Plain):
    def step(self) -> None:
        clamp(torch.ones(1))


class Within(Plain):
    def step(self) -> Any:
        return [one.data for one in (torch.ones(1),)]


class Holds(Plain):
    def __init__(self, value: Any) -> None:
        self.value = value

    def step(self) -> None:
        self.value(torch.ones(1))


class Rows(torch.utils.data.Dataset):  # type: ignore[type-arg]
    def __getitem__(self, index: int) -> Any:
        return torch.ones(1).numpy()


@pytest.mark.parametrize(
    ("actor", "may"),
    [
        (Plain(), False),  # an attribute of one's own that is called so, and a method that does not run
        (Calls(), True),
        (Names(), True),
        (Within(), True),
        (Holds(Calls()), True),
        (Holds(Plain()), False),
        (Holds(clamp), True),
        (Holds([functools.partial(clamp)]), True),
        (Holds({"a": Calls().step}), True),
        (Holds(Rows()), False),  # data have no model
        (clamp, True),
        (torch.nn.Linear(1, 1), False),
    ],
    ids=lambda one: type(one).__name__,
)
def test_code_is_followed_from_what_runs(actor: object, may: bool) -> None:
    """Along the names that it uses, into what the user's objects hold."""
    assert may_go_uncounted([actor], RUNS, TRUSTED) is may


def test_what_an_object_holds() -> None:
    """Also in lists and dicts; nothing of what a library's object holds."""
    assert list(held_by(Holds([1, 2]), TRUSTED)) == [1, 2]
    assert list(held_by(Holds({"a": 3}), TRUSTED)) == [3]
    assert list(held_by(torch.nn.Linear(1, 1), TRUSTED)) == []


@pytest.mark.parametrize(
    ("tensor", "may"),
    [
        (torch.zeros(1 << 16), True),
        (torch.nn.Parameter(torch.zeros(1 << 16)), True),
        (torch.zeros(1000), False),  # not worth it
        (torch.zeros(1 << 16).share_memory_(), False),  # another process may write there
        (torch.zeros(300, 300).to_sparse(), False),
        (3.0, False),
    ],
    ids=["tensor", "parameter", "small", "shared", "sparse", "number"],
)
def test_whose_changes_are_counted(tensor: object, may: bool) -> None:
    """Tensors with plain elements in memory that is this process's own."""
    assert is_countable(tensor) is may
