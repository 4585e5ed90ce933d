"""Lives: forked processes that end well, badly, or by SIGKILL. A fork of a warm process costs a millisecond or two."""

from __future__ import annotations

import os
import pickle
import signal
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.crash.calls import EXIT

__all__ = ["Life", "live"]

PATIENCE = 60
"""Seconds until a life that hangs is ended, and is an error."""


@dataclass
class Life:
    """What became of one.

    Attributes:
        killed: whether it died amid its work.
        told: what it told before it ended.
        result: what the work gave, if it was done.
    """

    killed: bool
    told: list[Any] = field(default_factory=list)
    result: Any = None


def live(work: Callable[[Callable[[Any], None]], Any]) -> Life:
    """Do some work in a forked process. It is given a function by which it can tell of things as they happen.

    Raises:
        AssertionError: it ended by an exception, or any other way than well or killed.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _end(work, writing)
    os.close(writing)
    life, error = Life(killed=True), None
    with open(reading, "rb") as messages:
        while True:
            try:
                kind, what = pickle.load(messages)  # noqa: S301 - our own fork wrote it
            except (EOFError, pickle.UnpicklingError):
                break
            if kind == "told":
                life.told.append(what)
            elif kind == "result":
                life.killed, life.result = False, what
            else:
                error = what
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert error is None, f"a life ended by an exception:\n{error}"
    assert code in ((-signal.SIGKILL, EXIT) if life.killed else (0,)), f"a life ended with exit code {code}"
    return life


def _end(work: Callable[[Callable[[Any], None]], Any], writing: int) -> None:
    """All that a child does."""
    signal.alarm(PATIENCE)
    write = os.write  # the work may replace it

    def tell(kind: str, what: Any) -> None:
        data = memoryview(pickle.dumps((kind, what)))
        while data:
            data = data[write(writing, data) :]

    try:
        tell("result", work(lambda what: tell("told", what)))
    except BaseException:  # noqa: BLE001 - whatever it is, the parent raises it
        tell("error", traceback.format_exc())
    os._exit(0)
