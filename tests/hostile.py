"""Snapshots whose digests are right, and whose state is none that a program has saved."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ckpt_callbacks import CheckpointError, Snapshot
from ckpt_callbacks.store.manifest import FileInfo, digest_of
from tests.fuzzing import restructured

__all__ = ["attack"]


def _forge(snapshot: Snapshot, directory: Path, rng: random.Random) -> None:
    """A copy of its run in which something of the state is not what it was, signed like any other."""
    shutil.copytree(snapshot.run_path, directory, symlinks=True)
    path = directory / "snapshots" / snapshot.id
    tree = json.loads((path / "state.json").read_bytes())
    tree["rest"] = json.loads(restructured(json.dumps(tree["rest"]).encode(), rng))
    data = json.dumps(tree).encode()
    (path / "state.json").write_bytes(data)
    files = {**snapshot.manifest.files, "state.json": FileInfo(len(data), digest_of(data))}
    (path / "manifest.json").write_bytes(replace(snapshot.manifest, files=files).to_bytes())


def attack(snapshot: Snapshot, directory: Path, trains: Callable[[Path, Path], object], *, times: int) -> None:
    """``trains(run directory, snapshot)`` ends well or raises an error of ours that names the snapshot, and both occur.

    Any other error goes through.
    """
    errors = []
    for number in range(times):
        run = directory / str(number)
        _forge(snapshot, run, random.Random(f"hostile {number}"))
        try:
            trains(run, run / "snapshots" / snapshot.id)
        except CheckpointError as error:
            errors.append(str(error))
        shutil.rmtree(run)
    assert times // 4 < len(errors) < times
    assert all(snapshot.id in error for error in errors)
