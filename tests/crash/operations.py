"""Operations: what a run goes through. Each can be done again after a crash, as people do: by the same command."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ckpt_callbacks import Run, keep_last, weights_after
from ckpt_callbacks.checkpointer import BaseCheckpointer
from ckpt_callbacks.store import LIMIT
from tests.crash.training import OPTIONS, Training, train
from tests.loop import Loop

__all__ = ["OPERATIONS", "OTHER_WAYS", "Operation"]

LAST = 14
"""The step at which every training is over."""

_Deed = Callable[[Path], object]


@dataclass(frozen=True)
class Operation:
    """Something that is done to a run.

    Attributes:
        prepare: makes the run, which lies in a directory that does not exist yet.
        act: does it.
        finish: what whoever was interrupted does then, to the end of training.
    """

    prepare: _Deed
    act: _Deed
    finish: _Deed

    @classmethod
    def repeated(cls, prepare: _Deed, act: _Deed) -> Operation:
        """One that is done again after a crash; then training goes on."""
        return cls(prepare, act, lambda run: (act(run), train(run, LAST)))


def _nothing(run: Path) -> None:
    """No run."""


def _trained(steps: int) -> _Deed:
    return lambda run: train(run, steps)


def _damage(run: Path, which: int) -> None:
    """Flip a bit in the weights of a snapshot."""
    path = Run(run).snapshots()[which].path / "state.json"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _damaged(run: Path) -> None:
    train(run, 8)
    _damage(run, -1)


def _in_disorder(run: Path) -> None:
    """A damaged snapshot, one set aside that is whole, an attempt, a demotion that was cut short, no link."""
    train(run, 10)
    _damage(run, -2)
    (run / "damaged").mkdir()
    Run(run).snapshots()[-3].path.rename(run / "damaged" / Run(run).snapshots()[-3].id)
    (run / "snapshots" / ".000000012-abcdef.partial").mkdir()
    (run / "snapshots" / ".000000012-abcdef.partial" / "state.json").write_bytes(b"{")
    (Run(run).snapshots()[0].path / ".demoted").write_text('["state.json"]')
    (run / "latest").unlink()


def _deadly(run: Path) -> None:
    """The newest snapshot has killed whoever loaded it."""
    train(run, 8)
    (run / ".resuming").write_text(json.dumps({"id": Run(run).latest.id, "deaths": LIMIT}))  # type: ignore[union-attr]


def _asked(run: Path) -> None:
    train(run, 8)
    Run(run).request("before the merge", wants_answer=True)


class _Heard(Training):
    """A training that goes on when the requests that are there were heard."""

    def run(self, steps: int, *, fail_at: int | None = None) -> Loop:
        self.waits = bool(self.checkpointer._store.inbox.messages())
        return super().run(steps, fail_at=fail_at)

    def advance(self) -> None:
        while self.waits and not self.checkpointer._requests:
            time.sleep(0.001)
        self.waits = False
        super().advance()


def _heard(steps: int) -> _Deed:
    return lambda run: _Heard(BaseCheckpointer(run, **OPTIONS)).run(steps)


def _heard_to_the_end(run: Path) -> None:
    """A day later: nobody comes for what is left half-written any more."""
    for path in run.glob("requests/*"):
        os.utime(path, (0, 0))
    _heard(LAST)(run)


def _answered_to_the_end(run: Path) -> None:
    _heard(LAST)(run)
    (request,) = (path.stem for path in (run / "requests").glob("*.answer"))
    assert "id" in Run(run).outcome(request), "whoever asked waits in vain"  # type: ignore[operator]


def _answered(run: Path) -> None:
    _asked(run)
    _heard(9)(run)


def _collect(run: Path) -> None:
    for path in (run / "requests").glob("*.answer"):
        Run(run).outcome(path.stem)


def _withdraw(run: Path) -> None:
    for path in (run / "requests").glob("*.request"):
        Run(run).withdraw(path.stem)


def _pin(run: Path) -> None:
    Run(run).pin("best", note="in the paper")


def _unpin(run: Path) -> None:
    Run(run).unpin("best")


def _prune(run: Path) -> None:
    Run(run).prune(keep_last(1), dry_run=False)


def _demote(run: Path) -> None:
    Run(run).prune([keep_last(9), weights_after(1)], dry_run=False)


def _ask(run: Path) -> None:
    Run(run).request("before the merge")


OPERATIONS = {
    "the first save": Operation(_nothing, _trained(2), _trained(LAST)),
    "resume and save": Operation(_trained(8), _trained(10), _trained(LAST)),
    "prune": Operation.repeated(_trained(12), _prune),
    "demote": Operation.repeated(_trained(12), _demote),
    "step over a damaged one": Operation(_damaged, _trained(8), _trained(LAST)),
    "step over a deadly one": Operation(_deadly, _trained(8), _trained(LAST)),
    "repair": Operation.repeated(_in_disorder, lambda run: Run(run).repair()),
    "pin": Operation.repeated(_trained(8), _pin),
    "unpin": Operation.repeated(lambda run: (train(run, 8), _pin(run)), _unpin),
    "ask": Operation(_trained(8), _ask, _heard_to_the_end),
    "withdraw": Operation.repeated(_asked, _withdraw),
    "answer": Operation(_asked, _heard(9), _answered_to_the_end),
    "collect the answer": Operation.repeated(_answered, _collect),
}
"""By what they are called."""

OTHER_WAYS = {
    "save at once": Operation(_trained(8), lambda run: train(run, 10, background=False), _trained(LAST)),
    "save without fsync": Operation(_trained(8), lambda run: train(run, 10, durability="none"), _trained(LAST)),
    "save twice": Operation(_trained(8), _trained(12), _trained(LAST)),
}
"""Further ones, whose calls are mostly those of others. Without fsync, a power cut may do what it will."""
