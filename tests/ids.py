"""Names of test cases that are the same in every process, as parallel runs need them."""

from __future__ import annotations

import re

__all__ = ["stable"]


def stable(value: object) -> str:
    """The repr of a value, without addresses and the order of sets, which differ between processes."""
    if isinstance(value, (set, frozenset)):
        return f"{type(value).__name__} of {len(value)}"
    text = re.sub(r" at 0x[0-9a-f]+", "", repr(value))
    return re.sub(r"\{[^{}:]*\}", "{...}", text)
