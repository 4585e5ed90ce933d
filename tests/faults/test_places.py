"""A run's directory that is moved, copied in every way that people copy, or restored from an older backup: it carries
on, with the same bits."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ckpt_callbacks import Run, SnapshotNotFoundError
from ckpt_callbacks.store import owner_of
from tests.faults.harness import FrozenLoop, checkpointer, contract, undisturbed
from tests.faults.test_two import training


def moved(source: Path, target: Path) -> None:
    """`mv`."""
    source.rename(target)


def copied(source: Path, target: Path) -> None:
    """`cp -r`: links are links, and what was one file under two names is two."""
    subprocess.run(["cp", "-r", str(source), str(target)], check=True)


def copied_through_links(source: Path, target: Path) -> None:
    """`cp -rL`, or a tool that knows no links: `best` and `latest` are directories."""
    subprocess.run(["cp", "-rL", str(source), str(target)], check=True)


def synchronized(source: Path, target: Path) -> None:
    """`rsync -a`."""
    if not shutil.which("rsync"):
        pytest.skip("there is no rsync here")
    subprocess.run(["rsync", "-a", f"{source}/", str(target)], check=True)


def packed(source: Path, target: Path) -> None:
    """`tar`: further names of a file stay further names."""
    with tarfile.open(source.with_suffix(".tar"), "w") as archive:
        archive.add(source, "run")
    with tarfile.open(source.with_suffix(".tar")) as archive:
        archive.extractall(target.parent / "unpacked", filter="data")
    (target.parent / "unpacked" / "run").rename(target)


def uploaded(source: Path, target: Path) -> None:
    """Through an object store: no links, no empty directories, no times, no hidden files."""
    for path in source.rglob("*"):
        if path.is_file() and not path.is_symlink() and not path.name.startswith("."):
            place = target / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(path.read_bytes())
            os.utime(place, (1, 1))


WAYS = [moved, copied, copied_through_links, synchronized, packed, uploaded]


@pytest.mark.parametrize("way", WAYS)
def test_the_run_carries_on_where_it_is_now(way: Callable[[Path, Path], None], tmp_path: Path) -> None:
    """All verifies, pins hold, and what is dropped there takes nothing from anybody."""
    run = undisturbed(tmp_path / "run")
    pinned = next(iter(Run(run).pins()))
    way(run, tmp_path / "there")
    contract(tmp_path / "there", pinned, 6)
    if way is not moved:
        contract(run, pinned, 6)


@pytest.mark.parametrize("way", WAYS[1:])
def test_a_copy_of_a_run_that_trains_is_a_run(way: Callable[[Path, Path], None], tmp_path: Path) -> None:
    """The copy's lock file names the process that trains in the original, which holds nothing here. What was being
    saved or deleted while it was copied is stepped over; what is pinned is there as a whole."""
    with training(tmp_path / "run"):
        pin_latest(Run(tmp_path / "run"))
        for nth in range(3):
            there = tmp_path / f"there{nth}"
            try:
                way(tmp_path / "run", there)
            except (subprocess.CalledProcessError, OSError, shutil.Error):  # files vanish while it copies: they say so
                continue
            finally:
                (tmp_path / "run.tar").unlink(missing_ok=True)
            assert owner_of(there) is None
            one = checkpointer(there, durability="none", resume="must")
            loop = FrozenLoop(one)
            steps = max(snapshot.step for snapshot in Run(there).snapshots()) + 4
            assert {*loop.run(steps).weights.tolist()} == {steps}
            assert Run(there).verify()
        assert owner_of(tmp_path / "run") is not None


def pin_latest(run: Run) -> None:
    """The latest full one: at full speed it may be reduced or gone before the pin is there."""
    pinned = None
    while pinned is None or run.get(pinned.id).content != "full":
        with contextlib.suppress(SnapshotNotFoundError):
            pinned = run.pin("latest")


def test_an_older_backup_is_an_older_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The whole directory as it was: it goes on from there, and nothing of later is known or missed."""
    run = undisturbed(tmp_path / "run")
    copied(run, tmp_path / "backup")
    FrozenLoop(checkpointer(run)).run(12)
    shutil.rmtree(run)
    copied(tmp_path / "backup", run)
    one = checkpointer(run)
    FrozenLoop(one).run(12)
    assert one.resumed is not None
    assert one.resumed.step == 6
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    contract(run, next(iter(Run(tmp_path / "backup").pins())), 12)


def test_snapshots_of_an_older_backup_under_a_newer_journal(tmp_path: Path) -> None:
    """Only `snapshots/` was restored: links dangle, journal and trace know of steps that are gone. The steps computed
    again are compared with those of then."""
    run = undisturbed(tmp_path / "run")
    copied(run, tmp_path / "backup")
    FrozenLoop(checkpointer(run)).run(12)
    shutil.rmtree(run / "snapshots")
    copied(tmp_path / "backup" / "snapshots", run / "snapshots")
    assert not (run / "latest").exists()
    one = checkpointer(run)
    FrozenLoop(one).run(12)
    assert one.resumed is not None
    assert one.resumed.step == 6
    assert one.resumed.proof is not None
    assert (one.resumed.proof.identical, one.resumed.proof.differs) == (6, None)
    assert (run / "latest").resolve().name == Run(run).latest.id  # type: ignore[union-attr]


def test_a_lightning_run_that_was_copied_ends_with_the_same_bits(tmp_path: Path) -> None:
    """A real trainer: begun here, copied, carried on there, then put back to the backup and carried on again."""
    from tests.golden.models import train_lightning

    alone = _bits(train_lightning(tmp_path / "alone", 4))
    train_lightning(tmp_path / "run", 2)
    copied(tmp_path / "run", tmp_path / "there")
    assert _bits(train_lightning(tmp_path / "there", 4)) == alone
    train_lightning(tmp_path / "run", 3)
    shutil.rmtree(tmp_path / "run")
    copied(tmp_path / "there", tmp_path / "run")
    for snapshot in Run(tmp_path / "run").snapshots()[1:]:
        shutil.rmtree(snapshot.path)
    assert _bits(train_lightning(tmp_path / "run", 4)) == alone


def _bits(trained: tuple) -> list[bytes]:
    return [np.asarray(value).tobytes() for value in trained[1].state_dict().values()]
