"""What a step costs with nothing due: the trace's record, and the engine's decision at the boundary.

python -m benchmarks.step_cost
"""

from __future__ import annotations

import tempfile
import timeit
from collections.abc import Callable
from pathlib import Path

from ckpt_callbacks import every_steps, on_best, on_end
from ckpt_callbacks.checkpointer import BaseCheckpointer, Captured
from ckpt_callbacks.engine import Event, Progress
from ckpt_callbacks.store import fingerprint

ROUNDS, CALLS = 7, 20_000


def main() -> None:
    """Print the median of some rounds, in microseconds a call."""
    with tempfile.TemporaryDirectory() as directory:
        checkpointer = BaseCheckpointer(
            Path(directory) / "run", monitor="loss", save=every_steps(10**9) | on_best() | on_end()
        )
        checkpointer.begin({})
        progress = Progress(1, 0, 1, 1)
        _print("trace: fingerprint and record", lambda: checkpointer.stepped(7, 7, 0.5, fingerprint(0.5)))
        _print("boundary: nothing due", lambda: checkpointer.boundary(progress, Event.NONE, {}, _never))
        checkpointer.end()


def _never() -> Captured:
    raise AssertionError("nothing is due")


def _print(what: str, work: Callable[[], object]) -> None:
    rounds = sorted(timeit.repeat(work, number=CALLS, repeat=ROUNDS))
    print(f"{what:<32} {rounds[ROUNDS // 2] / CALLS * 1e6:6.1f} us")


if __name__ == "__main__":
    main()
