"""Arguments that can't work are refused where they are given, not where they are first used."""

from __future__ import annotations

import operator
from typing import Any

from ckpt_callbacks.errors import ConfigurationError

__all__ = ["name_of", "positive", "refuse_own"]

_MOST = (1 << 63) - 1


def positive(name: str, n: int) -> int:
    """The count ``n`` that ``name`` was given, as an int: a whole number of at least 1 (and of 64 bits), of
    Python's or numpy's.

    Raises:
        ConfigurationError: it is something else.
    """
    try:
        whole = 0 if isinstance(n, bool) else operator.index(n)
    except TypeError:
        whole = 0
    if whole < 1:
        raise ConfigurationError(f"{name}({n!r}): expected a whole number of at least 1.")
    if whole > _MOST:
        raise ConfigurationError(f"{name}: expected a whole number of at most {_MOST}.")
    return whole


def refuse_own(call: str, given: Any) -> None:
    """Refuse a trigger, a rule, or what makes one, where the user's own function is expected.

    All of them are callable: ``on_best`` without its brackets would pass for a function, and what it returns is always
    true; a rule given as ``save=`` would fail at the first batch.

    Raises:
        ConfigurationError: ``given`` is one of these.
    """
    if not (getattr(given, "__module__", None) or "").startswith(f"{__package__}."):
        return
    name = getattr(given, "__name__", None)
    if name is None:
        raise ConfigurationError(f"{call}({given!r}): expected a function of your own; {given!r} is none.")
    raise ConfigurationError(f"{call}({given!r}): {name} must be called: expected {name}(...), found {name}.")


def name_of(function: Any) -> str:
    """What to call a function in a reason: the same in every process, so never with an address."""
    return getattr(function, "__name__", type(function).__name__)
