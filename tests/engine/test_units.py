"""Times and sizes as people write them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckpt_callbacks import ConfigurationError
from ckpt_callbacks.engine.units import bytes_of, human_seconds, seconds_of


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("1h30m", 5400),
        ("2d", 172_800),
        ("1w", 604_800),
        ("0.5 h", 1800),
        (7, 7),
        (timedelta(hours=1), 3600),
    ],
)
def test_times(text: str | float | timedelta, seconds: float) -> None:
    """With or without spaces, in parts or in one."""
    assert seconds_of(text, "every") == seconds


@given(st.integers(1, 10**7) | st.floats(0.001, 1e6))
def test_a_time_is_read_back_as_it_was_written(seconds: float) -> None:
    """In the largest unit that is whole."""
    assert seconds_of(human_seconds(seconds), "x") == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [("20 GB", 20 * 10**9), ("1.5tb", 1_500_000_000_000), ("500 MiB", 500 << 20), ("3 k", 3000), ("12", 12), (7, 7)],
)
def test_sizes(text: str | int, size: int) -> None:
    """Powers of ten, or of two where an i says so."""
    assert bytes_of(text, "keep_within") == size


@pytest.mark.parametrize(
    "text", ["", "GB", "-1 GB", "0", "1 XB", 1.5, True, None, "1e400 GB", "9" * 5000 + " GB", 1 << 63]
)
def test_what_is_no_size(text: object) -> None:
    """Is refused, with an example."""
    with pytest.raises(ConfigurationError, match="expected a size, such as '20 GB'"):
        bytes_of(text, "keep_within")  # type: ignore[arg-type]
