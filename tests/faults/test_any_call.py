"""Any single system call below the run's directory may fail, in any way: nothing is lost, and training goes on or stops
as it was told."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from ckpt_callbacks import Run, StoreError
from ckpt_callbacks.store.remedies import remedy
from tests.faults.harness import contract, failing, nothing_leaks, trains, undisturbed

REACHED, STEPS = 6, 10
ERRORS = {"EIO": errno.EIO, "ENOSPC": errno.ENOSPC, "EACCES": errno.EACCES, "ESTALE": errno.ESTALE}
CHANGES = {"mkdir", "create", "write", "fsync", "replace", "link"}


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six steps."""
    return undisturbed(tmp_path_factory.mktemp("before") / "run")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What matters of a fsync is when it is asked for, and whether it fails."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.mark.parametrize("on_error", ["warn", "raise"])
@pytest.mark.parametrize("number", ERRORS.values(), ids=ERRORS)
def test_any_call_may_fail_once(before: Path, tmp_path: Path, number: int, on_error: str) -> None:
    """Some calls of a resume and two saves with each error; `make faults` goes through all of them with each."""
    offset = [*ERRORS.values()].index(number) + len(ERRORS) * (on_error == "raise")
    with nothing_leaks():
        assert fail_each_call(before, tmp_path, number, on_error, offset, stride=2 * len(ERRORS)) > 25


def fail_each_call(before: Path, folder: Path, number: int, on_error: str, offset: int = 0, stride: int = 1) -> int:
    """Let one call fail after the other, each in a copy of a run, and check the contract; how many were met.

    What fails before training begins is an error; after that, only `on_error="raise"` lets one through. Every error is
    ours, and says the place, the reason and the remedy.
    """
    with failing(copy(before, folder / "count"), number, lambda call: False) as calls:
        trains(folder / "count", STEPS, on_error, background=False)
    pinned = next(iter(Run(before).pins()))
    met = 0
    for nth in range(offset, len(calls), stride):
        run = copy(before, folder / str(nth))
        with failing(run, number, lambda call, nth=nth: call.count == nth) as made:  # type: ignore[misc]
            loop, error = trains(run, STEPS, on_error, background=False)
        met += len(made) > nth
        told(error, run, number)
        assert loop.step == STEPS if error is None else loop.step == 0 or on_error == "raise", made[nth]
        contract(run, pinned, REACHED)
        shutil.rmtree(run)
    return met


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ESTALE])
def test_a_place_may_be_away_for_a_while(before: Path, tmp_path: Path, number: int, background: bool) -> None:
    """All that would change the disk fails from some call on, in the writer's thread as well: training goes on to its
    end, says what is wrong, and the next process finds everything that was there."""
    with failing(copy(before, tmp_path / "count"), number, lambda call: False) as calls:
        trains(tmp_path / "count", STEPS, "warn", background=False)
    began = next(call.count for call in calls if call.path.endswith(".partial") and call.name == "mkdir")
    for since in range(began, len(calls), 41):
        run = copy(before, tmp_path / str(since))
        pinned = next(iter(Run(run).pins()))
        away = lambda call, since=since: call.count >= since and call.name in CHANGES  # noqa: E731
        with failing(run, number, away):
            loop, error = trains(run, STEPS, "warn", background=background)
        assert error is None
        assert loop.step == STEPS
        contract(run, pinned, REACHED)
        shutil.rmtree(run)


def copy(source: Path, target: Path) -> Path:
    shutil.copytree(source, target, symlinks=True)
    return target


def told(error: Exception | None, run: Path, number: int) -> None:
    """An error of the disk names the place, the reason and the remedy."""
    if error is None:
        return
    text = str(error)
    assert isinstance(error, StoreError), text
    assert str(run) in text
    assert os.strerror(number) in text
    assert remedy(OSError(number, "")) in text, text
