"""The files of a snapshot name what comes back in another type."""

from __future__ import annotations

import enum

from ckpt_callbacks.state import payload


class Phase(enum.Enum):
    """An enum of the user's."""

    WARM, COLD = 1, 2


def test_what_comes_back_plain_is_named_once_for_each_attribute() -> None:
    """A list of a thousand members is one line, by the name that the user knows."""
    phases = {"in": "module", "key": "phases", "value": [Phase.WARM, {"x": Phase.COLD}] * 500, "fill": True}
    missing = payload.pack({}, {"live": {"attributes": [phases]}, "phase": Phase.WARM}).missing
    assert missing == {
        "module.phases": "1000 times: Phase comes back as a plain value",
        "phase": "Phase comes back as a plain value",
    }
