"""How often a state is held in memory in case that training fails."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ckpt_callbacks.saving.reserve import AT_ONCE, SHARE, SMALL, SPEED, Reserve

COSTS = st.tuples(st.floats(0, 2), st.integers(0, 10**10), st.floats(0, 100))


def cost(seconds: float, nbytes: int) -> float:
    return seconds + nbytes / SPEED


@given(st.lists(COSTS, max_size=30), st.integers(0, 10**10))
def test_what_it_costs_is_bounded(copies, nbytes):
    """A copy is made only if that and all before took no more than their share, had it cost what its forerunner did."""
    reserve, now, spent, last = Reserve(0.0, nbytes), 0.0, 0.0, cost(0, nbytes)
    for seconds, size, late in copies:
        now = max(now, reserve.due) + late
        assert spent + last <= AT_ONCE + SHARE * now + 1e-6 or now == late
        last = cost(seconds, size)
        spent += last
        reserve.took(seconds, size)


def test_a_small_state_is_held_at_each_of_the_first_boundaries():
    """And a large one at the first, and every one or two minutes."""
    small = Reserve(100.0, 10_000)
    copies = 0
    while small.due <= 100.0:
        small.took(0.002, 10_000)
        copies += 1
    assert copies == 249
    assert 0 < small.due - 100.0 < 1
    assert Reserve(100.0, 10**9).due == 100.0
    large = Reserve(100.0, 10**9)
    large.took(0.1, 10**9)
    assert 60 < large.due - 100.0 < 180


def test_a_large_state_waits_until_the_last_snapshot_is_written():
    """There is memory for one copy of it."""
    for nbytes, may in ((SMALL, True), (SMALL + 1, False)):
        reserve = Reserve(0.0, nbytes)
        assert not reserve.may(reserve.due - 1, busy=False)
        assert reserve.may(reserve.due, busy=False)
        assert reserve.may(reserve.due, busy=True) == may
