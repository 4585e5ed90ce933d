"""Real processes for tests: started quickly, killed by SIGKILL at a place the test chooses."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from multiprocessing.forkserver import _forkserver  # type: ignore[attr-defined]
from pathlib import Path
from typing import Any

__all__ = ["KILLED", "die", "run"]

KILLED = -signal.SIGKILL

_preloaded: list[str] = []
"""What the fork server has imported."""


def die() -> None:
    """End this very process as a power cut would: no handler, no finally, no flush."""
    os.kill(os.getpid(), signal.SIGKILL)


def run(
    target: Callable[..., None],
    *args: Any,
    options: dict[str, Any],
    log: Path,
    preload: tuple[str, ...] = (),
    timeout: float = 120,
) -> int:
    """Run ``target(*args, **options)`` in a process of its own and give its exit code; `KILLED` if SIGKILL ended it.

    The process is forked from a server that has only imported ``preload``: nothing of the test's own state is in it.
    Any other failure is raised here, with what the process printed.
    """
    process = _server([*preload, target.__module__]).Process(target=_main, args=(target, args, options, str(log)))
    process.start()
    deadline = time.monotonic() + timeout
    while process.exitcode is None and time.monotonic() < deadline:
        process.join(0.1)
        if not Path(f"/proc/{process.pid}").exists():
            _kill_group(process.pid)  # data loader workers outlive a killed parent by seconds, and would be waited for
    if process.exitcode is None:
        _kill_group(process.pid)
        process.join()
        raise AssertionError(f"{target.__name__} did not end within {timeout} s:\n{log.read_text()[-4000:]}")
    if process.exitcode not in (0, KILLED):
        raise AssertionError(f"{target.__name__} ended with {process.exitcode}:\n{log.read_text()[-6000:]}")
    return process.exitcode


def _server(modules: list[str]) -> ForkServerContext:
    """The fork server that has imported just these. There is one at a time; one that runs takes no more modules."""
    global _preloaded
    if _preloaded != modules:
        _forkserver._stop()  # type: ignore[attr-defined] # since Python 3.9; else each process imports them anew, 3 s
        multiprocessing.set_forkserver_preload(modules)
        _preloaded = modules
    return multiprocessing.get_context("forkserver")


def _kill_group(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def _main(target: Callable[..., None], args: tuple[Any, ...], options: dict[str, Any], log: str) -> None:
    os.setsid()
    multiprocessing.set_start_method("fork", force=True)  # as in a script; inherited from us, it would be forkserver
    with open(log, "a", buffering=1) as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
        try:
            target(*args, **options)
        except BaseException:
            traceback.print_exc(file=sys.stderr)
            sys.stderr.flush()
            raise
