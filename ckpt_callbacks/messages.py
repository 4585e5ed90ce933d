"""The voice: the few lines that a person reads while training runs."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator

__all__ = ["printable", "say", "steps", "warn"]

PATIENCE = 3.0
"""Seconds that a piece of work may take in silence."""

_log = logging.getLogger("ckpt_callbacks")


def say(text: str) -> None:
    """Tell the user something good to know, in one line on stderr (or wherever the program sends its log)."""
    _prepare()
    _log.info(printable(text))


def warn(text: str) -> None:
    """Tell the user something that needs attention."""
    _prepare()
    _log.warning(printable(text))


def printable(text: str) -> str:
    """A text that may come from a file or a file's name, with what steers a terminal, or can't be encoded, escaped."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() or sign == "\n" else ascii(sign)[1:-1] for sign in text)


def steps(total: int, what: str) -> Iterator[int]:
    """Count to ``total``; work that takes more than some seconds gets a progress bar, or a line where nobody watches.

    Args:
        total: how many pieces of work there are.
        what: the work, in a few words.
    """
    began, bar = time.monotonic(), None
    try:
        for done in range(total):
            if bar is None and time.monotonic() - began > PATIENCE:
                bar = _Bar(total, what)
            if bar is not None:
                bar.show(done)
            yield done
    finally:
        if bar is not None:
            bar.close()


class _Bar:
    """A progress bar on a terminal; one line of text where stderr is a file or a log."""

    def __init__(self, total: int, what: str) -> None:
        from rich.console import Console  # costs 100 ms, which only long work shall pay
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = TextColumn("[checkpoint] {task.description}", markup=False), BarColumn(), MofNCompleteColumn()
        self._bar = Progress(*columns, TimeRemainingColumn(), console=Console(file=sys.stderr), transient=True)
        self._task = self._bar.add_task(what, total=total)
        if self._bar.console.is_terminal:
            self._bar.start()
        else:
            say(f"{what}: {total} in all, which takes a while")

    def show(self, done: int) -> None:
        self._bar.update(self._task, completed=done)

    def close(self) -> None:
        self._bar.stop()


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
