"""Cycles: one run that dies again and again, at random places of random operations, and in the end is like new."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ckpt_callbacks import Run
from ckpt_callbacks.store import LocalStore
from tests.crash.calls import Death
from tests.crash.lives import live
from tests.crash.promises import Held, assert_exact, assert_kept, held, listing
from tests.crash.training import train
from tests.crash.trials import Committed, quiet, recorded, warm

__all__ = ["Outcome", "cycled"]


@dataclass
class Outcome:
    """What was done, and how it ended: deaths by what was going on, and what lies in the run after the last resume."""

    cycles: int = 0
    deaths: Counter[str] = field(default_factory=Counter)
    steps: int = 0
    ends: dict[str, Any] = field(default_factory=dict)
    undisturbed: dict[str, Any] = field(default_factory=dict)


def cycled(scratch: Path, cycles: int, seed: int) -> Outcome:
    """Put a run through so many cycles, each of which does something and may die of it; then let it finish.

    After each, all that was committed must be there bit for bit. In the end the run must be like one that had nothing
    but its training.
    """
    warm()
    rng, outcome, run = random.Random(seed), Outcome(cycles), scratch / "run"
    for _ in range(cycles):
        name = rng.choices(("train", "prune", "repair", "pin", "ask"), (6, 1, 1, 1, 1))[0]
        if name == "train":
            outcome.steps += rng.randint(1, 4)
        _one(run, name, _deed(name, outcome.steps, seed), _death(rng, name), outcome, seed)
    outcome.steps += 8  # so that rules have looked at all that was disturbed
    outcome.ends = _finished(run, outcome.steps, seed)
    outcome.undisturbed = _finished(scratch / "undisturbed", outcome.steps, seed)
    return outcome


def _deed(name: str, steps: int, seed: int) -> Callable[[Path], object]:
    deeds: dict[str, Callable[[Path], object]] = {
        "train": lambda run: train(run, steps, seed),
        "prune": lambda run: Run(run).prune(dry_run=False),
        "repair": lambda run: Run(run).repair(),
        "pin": lambda run: Run(run).unpin(Run(run).pin("latest").id),
        "ask": lambda run: Run(run).withdraw(Run(run).request("now", wants_answer=True)),
    }
    return deeds[name]


def _death(rng: random.Random, name: str) -> Death:
    """Somewhere, if there are so many calls."""
    threads = (("MainThread", 20), ("ckpt-writer", 45)) if name == "train" else (("MainThread", 5),)
    thread, most = rng.choice(threads)
    return Death(thread, rng.randint(1, most), rng.choice(("before", "amid", "after")))


def _one(run: Path, name: str, deed: Callable[[Path], object], death: Death, outcome: Outcome, seed: int) -> None:
    """Do something, die or not, and look at what is left."""
    if name != "train" and not (LocalStore(run).exists() and Run(run).snapshots()):
        return

    def work(tell: Callable[[Any], None]) -> None:
        recorded(run, lambda told: tell(told) if isinstance(told, Committed) else None, death)
        deed(run)

    before = held(run)
    life = live(work)
    outcome.deaths[name] += life.killed
    reported = [told.step for told in life.told]
    # The rules may drop what they like, but neither the newest nor what would then be missing.
    newest = Counter({max([*before.steps, *reported], default=0): 1}) if before.steps or reported else Counter()
    assert_kept(run, before, Held(newest, Counter()), reported, seed=seed)


def _finished(run: Path, steps: int, seed: int) -> dict[str, Any]:
    """Nobody disturbs it any more: what lies there in the end."""

    def work(tell: Callable[[Any], None]) -> None:
        quiet()
        if LocalStore(run).exists():
            for id in LocalStore(run).pins():
                LocalStore(run).unpin(id)
            for path in run.glob("requests/*.request"):
                Run(run).withdraw(path.stem)
            for path in run.glob("requests/*"):  # a day later
                os.utime(path, (0, 0))
            # Three deaths in a row may all have come while one snapshot was loaded, which is remembered until somebody
            # repairs the run.
            LocalStore(run).attempts.forgive_all()
        train(run, steps, seed)

    live(work)
    for snapshot in Run(run).snapshots():
        assert_exact(snapshot, seed)
    return listing(run)
