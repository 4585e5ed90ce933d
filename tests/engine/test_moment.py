"""A moment: where training stands, what happened, what was measured."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckpt_callbacks import Event, Moment, Progress

progresses = st.builds(Progress, *[st.integers(0, 2**62)] * 4)


@given(progresses)
def test_progress_survives_json(progress: Progress) -> None:
    """The four counts come back by name, whatever their order in the file."""
    text = json.dumps(progress.as_dict(), sort_keys=True)
    assert Progress.from_dict(json.loads(text)) == progress


def test_a_run_begins_at_zero() -> None:
    """No step, no epoch, no batch."""
    assert Progress().as_dict() == {"step": 0, "epoch": 0, "batch": 0, "batches": 0}


def test_a_moment_is_quiet_unless_told() -> None:
    """Most moments are between two batches where nothing happened and nothing was measured."""
    moment = Moment(Progress(step=1))
    assert not moment.events
    assert not moment.metrics
    assert moment.note is None


def test_several_events_may_meet_in_one_moment() -> None:
    """The last epoch ends, its validation too, and training with them."""
    events = Event.EPOCH_END | Event.VALIDATION_END | Event.FIT_END
    assert Event.FIT_END in events
    assert Event.EXCEPTION not in events


@pytest.mark.parametrize("state", [Progress(), Moment(Progress())], ids=["progress", "moment"])
def test_moments_do_not_change(state: Progress | Moment) -> None:
    """Two moments are two objects: what was decided on stays what it was."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(state, dataclasses.fields(state)[0].name, None)
