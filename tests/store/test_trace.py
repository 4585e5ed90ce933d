"""The trace: one fingerprint for each step, bounded, and there after SIGKILL."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckpt_callbacks.store import Step, Trace, fingerprint
from ckpt_callbacks.store.trace import SLOTS
from tests import processes


def step(batches: int, loss: float = 0.5) -> Step:
    return Step(batches, batches, loss, fingerprint(loss))


@pytest.fixture
def trace(tmp_path):
    trace = Trace(tmp_path / "trace.bin")
    trace.open()
    yield trace
    trace.close()


def reopened(trace: Trace) -> Trace:
    """The trace as the next process finds it."""
    trace.close()
    return Trace(trace.path)


def test_steps_after_a_snapshot(trace):
    """What came after the snapshot is given back, bit for bit."""
    for batches in range(1, 8):
        trace.record(*step(batches, batches / 3))
    assert reopened(trace).after(4) == {batches: step(batches, batches / 3) for batches in (5, 6, 7)}


def test_it_is_bounded(trace):
    """The file never grows beyond its ring; the newest steps are the ones that stay."""
    for batches in range(1, 2 * SLOTS + 100):
        trace.record(*step(batches))
    assert trace.path.stat().st_size == 32 * (SLOTS + 1)
    assert min(reopened(trace).after(0)) == SLOTS + 100


def test_a_course_that_was_left_is_not_compared_with(trace):
    """A later attempt that ended earlier hides what the one before it did beyond that place."""
    for batches in range(1, 10):
        trace.record(*step(batches, 1.0))
    trace.open()
    for batches in range(3, 6):
        trace.record(*step(batches, 2.0))
    assert reopened(trace).after(2) == {batches: step(batches, 2.0) for batches in (3, 4, 5)}


@pytest.mark.parametrize("bit", range(8 * 32))
def test_a_record_that_is_damaged_is_as_one_that_is_missing(trace, bit):
    """Whichever of its bits flipped: it accuses nobody's code, hides no other record, and can be told."""
    for batches in range(1, 8):
        trace.record(*step(batches))
    assert trace.damaged() == 0
    data = bytearray(trace.path.read_bytes())
    data[32 * (1 + 5) + bit // 8] ^= 1 << bit % 8
    trace.path.write_bytes(data)
    one = reopened(trace)
    assert sorted(one.after(0)) == [1, 2, 3, 4, 6, 7]
    assert one.damaged() == 1


def test_the_numbers_of_attempts_come_to_an_end(trace):
    """So many resumes that their count has no room: the trace begins anew."""
    trace._attempt = 0xFFFF
    trace.record(*step(1))
    trace.open()
    assert trace.after(0) == {}
    trace.record(*step(2))
    assert list(trace.after(0)) == [2]


def test_a_fresh_run_forgets(trace):
    """A run that doesn't carry on from what is there has nothing to compare with."""
    trace.record(*step(1))
    trace.open(afresh=True)
    assert reopened(trace).after(0) == {}


def test_another_file_is_replaced(tmp_path):
    """Rubbish, or a trace of another format, is no trace."""
    path = tmp_path / "trace.bin"
    path.write_bytes(b"x" * 1000)
    trace = Trace(path)
    assert trace.after(0) == {}
    trace.open()
    trace.record(*step(3))
    assert list(reopened(trace).after(0)) == [3]


def test_without_a_file_training_goes_on(tmp_path, caplog):
    """What can't be written is named once; nothing is raised."""
    trace = Trace(tmp_path / "missing" / "trace.bin")
    trace.open()
    trace.record(*step(1))
    assert [record.message.count("can't be written") for record in caplog.records] == [1]


def _record_and_die(path: str) -> None:
    trace = Trace(path)
    trace.open()
    for batches in range(1, 1000):
        trace.record(*step(batches, 1 / batches))
    processes.die()


def test_it_survives_sigkill(tmp_path):
    """Every step that was recorded before the kill is there after it."""
    path = tmp_path / "trace.bin"
    died = processes.run(_record_and_die, str(path), options={}, log=Path(tmp_path / "log"))
    assert died == processes.KILLED
    assert Trace(path).after(0) == {batches: step(batches, 1 / batches) for batches in range(1, 1000)}


@given(st.lists(st.floats(), min_size=1), st.lists(st.floats(), min_size=1))
def test_fingerprints_tell_bits_apart(one, other):
    """Equal fingerprints mean equal bits: -0.0 is not 0.0, and a NaN is equal to itself."""
    same = [(math.copysign(1, x), repr(x)) for x in one] == [(math.copysign(1, x), repr(x)) for x in other]
    assert fingerprint(*one) == fingerprint(*one)
    assert same or fingerprint(*one) != fingerprint(*other) or any(map(math.isnan, one + other))
