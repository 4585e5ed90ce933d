"""The voice: the few lines that a person reads while training runs."""

from __future__ import annotations

import logging

__all__ = ["say", "warn"]

_log = logging.getLogger("ckpt_callbacks")


def say(text: str) -> None:
    """Tell the user something good to know, in one line on stderr (or wherever the program sends its log)."""
    _prepare()
    _log.info(text)


def warn(text: str) -> None:
    """Tell the user something that needs attention."""
    _prepare()
    _log.warning(text)


def _prepare() -> None:
    """Give the logger a level, and a plain handler unless the program configured logging itself."""
    if _log.level == logging.NOTSET:
        _log.setLevel(logging.INFO)
    if _log.handlers or logging.getLogger().handlers:
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("[checkpoint] %(message)s"))
    _log.addHandler(handler)
    _log.propagate = False
