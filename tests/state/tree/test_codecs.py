"""The allow-list for types of the user's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from ckpt_callbacks.errors import ConfigurationError, UnstorableError
from ckpt_callbacks.state import decode, encode, register_codec, unregister_codec
from tests.state.trees import through_memory


class Average:
    """A type of the user's, with a tensor in it."""

    def __init__(self, total: torch.Tensor, count: int) -> None:
        self.total, self.count = total, count


def to_plain(value: Average) -> Any:
    """What an average is made of."""
    return {"total": value.total, "count": value.count}


def from_plain(tree: Any) -> Average:
    """An average of its parts."""
    return Average(**tree)


@pytest.fixture
def codec() -> Iterator[None]:
    """The codec of ``Average``, registered for one test."""
    register_codec(Average, "tests.Average", to_plain, from_plain)
    yield
    unregister_codec("tests.Average")


@pytest.mark.usefixtures("codec")
def test_a_registered_type_round_trips() -> None:
    """Its tensors are stored as tensors, under its path."""
    encoded = encode({"loss": Average(torch.ones(2), 3)})
    assert list(encoded.tensors) == ["loss.total"]
    restored = decode(encoded.structure, encoded.tensors)["loss"]
    assert type(restored) is Average
    assert restored.count == 3
    assert restored.total.tolist() == [1, 1]


@pytest.mark.usefixtures("codec")
def test_a_subclass_is_another_type() -> None:
    """A codec speaks for exactly its type: what a subclass adds would be lost."""
    with pytest.raises(UnstorableError, match="Sub"):
        encode(type("Sub", (Average,), {})(torch.ones(1), 1))


def test_without_its_codec_a_file_says_what_to_register() -> None:
    """The name is looked up in the registry, nowhere else."""
    with pytest.raises(ConfigurationError, match=r"at .*|'tests.Average', which isn't registered"):
        decode({"$": "codec", "name": "tests.Average", "value": {}}, {})


def test_a_codec_that_fails_names_itself() -> None:
    """The error of the user's code is kept as the cause."""
    register_codec(Average, "tests.Average", lambda value: 1, from_plain)
    try:
        with pytest.raises(ConfigurationError, match=r"'tests.Average' failed at a"):
            through_memory({"a": Average(torch.ones(1), 1)})
    finally:
        unregister_codec("tests.Average")


@pytest.mark.usefixtures("codec")
def test_names_belong_to_one_type() -> None:
    """Two types under one name would be confused; the same class again, as in a notebook, replaces the codec."""
    with pytest.raises(ConfigurationError, match="belongs to"):
        register_codec(type("Other", (), {}), "tests.Average", to_plain, from_plain)  # type: ignore[arg-type]
    again = type("Average", (), {"__module__": __name__})
    register_codec(again, "tests.Average", lambda value: 1, lambda tree: again())
    assert type(through_memory(again())) is again


@pytest.mark.parametrize(("kind", "name"), [(dict, "mine"), (Average, "")])
def test_builtin_types_and_empty_names_are_refused(kind: type, name: str) -> None:
    """How a dict is stored is not for anyone to change."""
    with pytest.raises(ConfigurationError):
        register_codec(kind, name, lambda value: 1, lambda tree: tree)
