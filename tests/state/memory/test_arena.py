"""The memory that snapshots wait in: lent, given back, and lent again."""

from __future__ import annotations

import numpy as np
import pytest

from ckpt_callbacks.state.memory import arena as module
from ckpt_callbacks.state.memory.arena import Arena
from ckpt_callbacks.state.memory.pages import PAGE, fresh


def address(part: np.ndarray) -> int:
    """Where it lies."""
    return part.__array_interface__["data"][0]


def test_parts_begin_at_pages_and_do_not_overlap() -> None:
    """As a write that bypasses the page cache asks for."""
    block = Arena().lend(3 * PAGE)
    parts = [block.part(5), block.part(PAGE), block.part(1)]
    assert [part.nbytes for part in parts] == [5, PAGE, 1]
    assert [address(part) - address(parts[0]) for part in parts] == [0, PAGE, 2 * PAGE]
    assert address(parts[0]) % PAGE == 0
    with pytest.raises(ValueError, match="no part"):
        block.part(100 * PAGE)


def test_memory_is_used_again() -> None:
    """Also for a state that grew a little."""
    arena = Arena()
    first = arena.lend(100 * PAGE)
    where = address(first.part(1))
    first.give_back()
    assert address(arena.lend(101 * PAGE).part(1)) == where


def test_two_blocks_at_a_time_are_two() -> None:
    """One is written while the next is staged; of the two, the larger is kept."""
    arena = Arena()
    one, two = arena.lend(PAGE), arena.lend(50 * PAGE)
    where = address(two.part(1))
    assert address(one.part(1)) != where
    two.give_back()
    one.give_back()
    assert address(arena.lend(PAGE).part(1)) == where


def test_a_block_that_was_given_back_has_no_parts() -> None:
    """Its memory may be somebody else's by now."""
    block = Arena().lend(PAGE)
    block.give_back()
    with pytest.raises(ValueError, match="no part"):
        block.part(1)
    block.give_back()


def test_no_memory_says_so() -> None:
    """With how much was asked for."""
    with pytest.raises(MemoryError, match="can't be had"):
        Arena().lend(1 << 60)


def test_what_is_idle_can_be_let_go_of() -> None:
    """When training is over; the next block is fresh."""
    arena = Arena()
    block = arena.lend(PAGE)
    block.part(1)[:] = 7
    block.give_back()
    arena.clear()
    assert arena.lend(PAGE).part(1)[0] == 0


def test_memory_is_ready_before_it_is_needed() -> None:
    """Touched once, it is what the first block gets; a state that came out a little larger still fits."""
    arena = Arena()
    arena.warm(100 * PAGE)
    assert arena._idle is not None
    where = address(arena._idle)
    arena.warm(50 * PAGE)
    assert address(arena.lend(105 * PAGE).part(1)) == where


def test_what_comes_too_late_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block was lent meanwhile: there is memory for the next one then."""
    arena = Arena()
    monkeypatch.setattr(module, "_STRETCH", PAGE)
    monkeypatch.setattr(module, "fresh", lambda nbytes, **_: (arena.lend(PAGE), fresh(nbytes))[1])
    monkeypatch.setattr(arena, "lend", lambda nbytes: setattr(arena, "_asked", arena._asked + 1))
    arena.warm(100 * PAGE)
    assert arena._idle is None


def test_no_memory_to_make_ready_is_no_error() -> None:
    """It was a guess; a save will say what it lacks."""
    arena = Arena()
    arena.warm(1 << 60)
    assert arena._idle is None
