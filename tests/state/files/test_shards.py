"""Which tensors share a file: those that stay the same lie apart from those that change."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckpt_callbacks.state import HostTensor
from ckpt_callbacks.state.files import shards
from ckpt_callbacks.state.files.shards import NOTICED, SMALLEST, Shards, names_of, pattern_of

MB = 1 << 20


class Tensor:
    """Of some size."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes


def tensors(**sizes: int) -> dict[str, Tensor]:
    """Name -> a tensor of so many bytes."""
    return {name: Tensor(size) for name, size in sizes.items()}


def names(parts: list[dict[str, Tensor]]) -> list[list[str]]:
    """Which tensors each file has."""
    return [list(part) for part in parts]


def saved(known: Shards, held: dict[str, Tensor], digests: str) -> list[list[str]]:
    """Split, and learn from what was saved: a letter for each tensor's bytes."""
    parts = known.split(held)
    letters = dict(zip(held, digests, strict=True))
    watched = [name for name in held if known.watches(name, held[name].nbytes)]
    known.learn({name: letters[name] for name in watched}, {name: held[name].nbytes for name in watched})
    return names(parts)


def test_one_file_where_all_changes() -> None:
    """As long as nothing is known to stay the same."""
    known, held = Shards(), tensors(a=MB, b=9 * MB)
    assert [saved(known, held, digests) for digests in ("ab", "cd", "ef")] == [[["a", "b"]]] * 3


def test_what_is_known_to_be_frozen_lies_apart_from_the_first_snapshot_on() -> None:
    """The adapter's word is taken until the bytes say otherwise."""
    assert names(Shards().split(tensors(a=MB, b=9 * MB, c=5), frozen={"b"})) == [["a", "c"], ["b"]]


def test_what_stayed_the_same_is_found_out() -> None:
    """Seen twice alike, it lies apart the next time."""
    known, held = Shards(), tensors(a=MB, b=9 * MB)
    assert saved(known, held, "xb") == saved(known, held, "yb") == [["a", "b"]]
    assert saved(known, held, "zb") == saved(known, held, "wb") == [["a"], ["b"]]


def test_a_glance_tells_of_most_changes() -> None:
    """What is not the same at a glance needs no digest; what is seen for the first time does."""
    known = Shards()
    glances = [b"x", b"y", b"y", b"x"]
    assert [known.moved("a", glance) for glance in glances] == [False, True, False, True]
    assert not known.moved("b", b"x")


def test_what_begins_to_change_goes_back() -> None:
    """A backbone that is thawed."""
    known, held = Shards(), tensors(a=MB, b=9 * MB)
    known.split(held, frozen={"b"})
    assert saved(known, held, "ab") == saved(known, held, "cd") == [["a"], ["b"]]
    assert saved(known, held, "ef") == [["a", "b"]]


def test_little_is_not_worth_a_file() -> None:
    """Neither at first nor later; and files are not cut anew for a small part of all bytes."""
    assert names(Shards().split(tensors(a=MB, b=SMALLEST - 1), frozen={"b"})) == [["a", "b"]]
    known, held = Shards(), tensors(a=90 * MB, b=9 * MB, c=NOTICED - 1)
    assert [saved(known, held, digests) for digests in ("xbc", "ybc", "zbc")] == [[["a", "b", "c"]]] * 3


def test_no_file_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Except for one with a single tensor."""
    monkeypatch.setattr(shards, "LARGEST", 10)
    held = tensors(a=4, b=5, c=2, d=11, e=10)
    assert names(Shards().split(held)) == [["a", "b"], ["c"], ["d"], ["e"]]
    assert names(Shards().split({})) == [[]]


def test_names_are_those_of_the_hub() -> None:
    """And no other file has such a name."""
    assert names_of("model.safetensors", 1) == ["model.safetensors"]
    several = names_of("model.safetensors", 2)
    assert several == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    matches = pattern_of("model.safetensors").fullmatch
    assert all(map(matches, [*several, "model.safetensors"]))
    assert not any(
        map(
            matches, ["model.safetensors.index.json", "a-model.safetensors", "model-x.safetensors", "state.safetensors"]
        )
    )


@given(st.lists(st.dictionaries(st.sampled_from("abcdef"), st.tuples(st.integers(0, 40), st.integers(0, 3)))))
def test_every_tensor_is_in_one_file_whatever_was_seen(history: list[dict[str, tuple[int, int]]]) -> None:
    """Tensors come and go, grow and change: nothing is lost, nothing is there twice."""
    known = Shards()
    for state in history:
        held = {name: Tensor(size * MB // 8) for name, (size, _) in state.items()}
        parts = known.split(held, frozen={"a"})
        assert sorted(name for part in parts for name in part) == sorted(held)
        assert all(parts[1:])
        watched = [name for name in held if known.watches(name, held[name].nbytes)]
        known.learn({name: str(state[name]) for name in watched}, {name: held[name].nbytes for name in watched})


def test_a_host_tensor_is_what_is_split() -> None:
    """Only its size counts."""
    import numpy as np

    host = HostTensor("U8", (3,), np.zeros(3, np.uint8))
    assert Shards().split({"a": host}) == [{"a": host}]
