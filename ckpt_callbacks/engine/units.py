"""Times and sizes as people write them: ``"1h30m"``, ``"20 GB"``."""

from __future__ import annotations

import math
import re
from datetime import timedelta

from ckpt_callbacks.errors import ConfigurationError

__all__ = ["bytes_of", "human_seconds", "seconds_of"]

_TIMES = {"w": 604800.0, "d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
_SIZES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "p": 10**15}
_MOST = (1 << 63) - 1  # no disk has more
_BINARY = {"ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30, "ti": 1 << 40, "pi": 1 << 50}


def seconds_of(interval: str | float | timedelta, where: str) -> float:
    """Some time in seconds: ``"30m"``, ``"1h30m"``, ``"90s"``, ``"2d"``, ``"1w"``; seconds; or a timedelta.

    Args:
        interval: the time.
        where: who was given it, for the error.

    Raises:
        ConfigurationError: it is something else, or not more than 0.
    """
    try:
        seconds = _seconds(interval)
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise ConfigurationError(
            f"{where}({interval!r}): expected some time, such as '30m', '1h30m', '90s', '2d', seconds or a timedelta."
        )
    return seconds


def _seconds(interval: str | float | timedelta) -> float:
    if isinstance(interval, timedelta):
        return interval.total_seconds()
    if isinstance(interval, str):
        text = interval.replace(" ", "").lower()
        if not re.fullmatch(r"(\d+(\.\d+)?[wdhms])+", text):
            raise ValueError(text)
        return sum(float(number) * _TIMES[unit] for number, unit in re.findall(r"(\d+(?:\.\d+)?)([wdhms])", text))
    if isinstance(interval, bool) or not isinstance(interval, (int, float)):
        raise TypeError(interval)
    return float(interval)


def human_seconds(seconds: float) -> str:
    """A time as `seconds_of` reads it, in the largest unit that is whole: ``"1h"``, ``"90m"``."""
    for unit, length in _TIMES.items():
        if seconds >= length and seconds % length == 0:
            return f"{int(seconds // length)}{unit}"
    return f"{seconds!r}s"


def bytes_of(size: str | int, where: str) -> int:
    """A size in bytes: a whole number, or such as ``"20 GB"``, ``"1.5 TB"``, ``"500 MiB"``.

    Raises:
        ConfigurationError: it is something else, not more than 0, or more than any disk has.
    """
    found: float = 0
    if isinstance(size, str):
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgtp]?i?)b?", size.strip().lower())
        if match and match[2] in (units := {**_SIZES, **_BINARY}):
            found = float(match[1]) * units[match[2]]
    elif isinstance(size, int) and not isinstance(size, bool):
        found = size
    if not 1 <= found <= _MOST:
        raise ConfigurationError(f"{where}({size!r}): expected a size, such as '20 GB', '500 MiB', or bytes.")
    return int(found)
