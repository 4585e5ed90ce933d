"""Arguments that can't work are refused where they are given, not where they are first used."""

from __future__ import annotations

import operator

from ckpt_callbacks.errors import ConfigurationError

__all__ = ["positive"]


def positive(name: str, n: int) -> int:
    """The count ``n`` that ``name`` was given, as an int: a whole number of at least 1, of Python's or numpy's.

    Raises:
        ConfigurationError: it is something else.
    """
    try:
        whole = 0 if isinstance(n, bool) else operator.index(n)
    except TypeError:
        whole = 0
    if whole < 1:
        raise ConfigurationError(f"{name}({n!r}): expected a whole number of at least 1.")
    return whole
