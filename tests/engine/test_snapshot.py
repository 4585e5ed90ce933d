"""What the rules see of a committed snapshot."""

from __future__ import annotations

import dataclasses

import pytest

from ckpt_callbacks import Progress
from ckpt_callbacks.engine import Record


def test_a_record_tells_its_step_and_epoch() -> None:
    """Short for where training stood."""
    record = Record("a", 1, Progress(step=1200, epoch=3, batch=7, batches=1207))
    assert (record.step, record.epoch) == (1200, 3)


def test_a_record_needs_only_a_name_and_a_place_in_the_order() -> None:
    """By default it is one that can be resumed from, and that nobody pinned."""
    record = Record("a", 1)
    assert (record.content, record.pinned, record.metrics, record.parent) == ("full", False, {}, None)


def test_records_do_not_change() -> None:
    """A rule can't alter what the next one sees."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        Record("a", 1).pinned = True  # type: ignore[misc]
