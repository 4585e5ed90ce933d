"""Promises: what must be true of a run after any crash, before anybody has cleaned up; and what lies in it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ckpt_callbacks import Run, Snapshot
from ckpt_callbacks import resume as resuming
from ckpt_callbacks.store import LocalStore, verify_directory
from tests.crash.training import digests, state_at

__all__ = ["Held", "assert_exact", "assert_kept", "damaged", "held", "listing"]


@dataclass(frozen=True)
class Held:
    """What a run holds: how many snapshots of each step, and how many of them are full."""

    steps: Counter[int]
    full: Counter[int]


def held(run: Path, but: Collection[str] = ()) -> Held:
    """What a run holds now; a directory that is no run yet holds nothing.

    Args:
        run: its directory.
        but: the ids of snapshots that don't count: they are damaged.
    """
    snapshots = [one for one in Run(run).snapshots() if one.id not in but] if LocalStore(run).exists() else []
    return Held(Counter(one.step for one in snapshots), Counter(one.step for one in snapshots if one.content == "full"))


def damaged(run: Path) -> set[str]:
    """The ids of snapshots that do not verify."""
    return {problem.snapshot for problem in Run(run).verify().problems} if LocalStore(run).exists() else set()


def assert_kept(
    run: Path,
    before: Held,
    after: Held,
    reported: Iterable[int],
    *,
    but: Collection[str] = (),
    seed: int = 0,
) -> None:
    """Nothing that was committed is lost or broken, and nothing broken passes for a snapshot.

    Args:
        run: as the crash left it.
        before: what it held before the operation.
        after: what it would hold, had nobody interrupted.
        reported: the steps that the operation said were committed.
        but: the ids of snapshots that were damaged before.
        seed: of the training.
    """
    if not LocalStore(run).exists():
        assert not before.steps | Counter(reported), "the run is gone"
        return
    assert LocalStore(run).problems() == {}
    assert LocalStore(run).leftovers() == []
    now, reported = held(run, but), Counter(reported)
    for had, wants, has in (
        (before.steps + reported, after.steps, now.steps),
        (before.full + reported, after.full, now.full),
    ):
        assert not ((had & wants) - has), f"lost: {(had & wants) - has}"
        assert max(had, default=0) <= max(has, default=0), f"the newest is lost: had {had}, has {has}"
    for snapshot in Run(run).snapshots():
        if snapshot.id not in but:
            assert_exact(snapshot, seed)


def assert_exact(snapshot: Snapshot, seed: int) -> None:
    """A snapshot verifies, and has the bits that training had at its step."""
    expected = state_at(snapshot.step, seed)
    if snapshot.content == "full":
        restored = resuming.load(snapshot)
        found = digests(restored.weights, restored.rest)
    else:
        assert verify_directory(snapshot.path) == []
        found = digests(snapshot.weights(), None)
        expected = {name: expected[name] for name in found}
    assert found == expected, f"{snapshot.id} is not the state of its step"


def listing(run: Path) -> dict[str, Any]:
    """All that lies in a run, ids and times aside: two runs that differ in nothing else give the same."""
    store = LocalStore(run)
    steps = {one.id: one.progress.step for one in store.manifests()}
    snapshots = {
        f"{record.progress.step} {record.content}": {
            path.name: path.stat().st_size for path in store.path(record.id).iterdir() if path.name != "manifest.json"
        }
        for record in store.records()
        if record.line == 0
    }
    return {
        "run": sorted(path.name for path in run.iterdir() if path.name not in ("damaged", "requests")),
        "snapshots": snapshots,
        "strangers": sorted(path.name for path in (run / "snapshots").iterdir() if path.name not in steps),
        "best": steps[(run / "best").readlink().name],
        "latest": steps[(run / "latest").readlink().name],
        "pins": sorted(steps.get(id, -1) for id in store.pins()),
        "damaged": len(store.aside()),
        "requests": sorted({re.sub(r"\d+-[0-9a-f]+", "", path.name) for path in run.glob("requests/*")}),
        "trace": (run / "trace.bin").stat().st_size,
    }
