"""Faults of a real machine, in a real process: a small file system that is full, one that becomes read-only, a
directory without permission, limits on descriptors and the size of files. The machine fails from step 7 to step 11."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

MOUNT = 'mount -t tmpfs -o size=12m none "$1" && shift && exec "$@"'
WITHOUT_POWER = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")


@cache
def why_not_mounted() -> str | None:
    """Why no file system can be mounted here; None if it can."""
    if not shutil.which("unshare"):
        return "there is no unshare here to mount a small file system with"
    tried = subprocess.run(["unshare", "-Urm", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, text=True)
    return f"mounting a small file system is not permitted here: {tried.stderr.strip()}" if tried.returncode else None


def around(fault: str, folder: Path) -> list[str]:
    """What the process must be started by, so that the fault can be had."""
    if fault in ("full", "read-only"):
        if why := why_not_mounted():
            pytest.skip(why)
        return ["unshare", "-Urm", "sh", "-c", MOUNT, "sh", str(folder)]
    if fault == "forbidden" and os.getuid() == 0:
        if not shutil.which("setpriv"):
            pytest.skip("root may do everything, and there is no setpriv here to take that from it")
        return [*WITHOUT_POWER]
    return []


def live(fault: str, folder: Path, on_error: str) -> dict:
    """One training, and what became of it."""
    life = [sys.executable, "-m", "tests.faults.lives", fault, str(folder / "run"), on_error]
    done = subprocess.run([*around(fault, folder), *life], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


FAULTS = {
    "full": ("No space left on device", "df"),
    "read-only": ("Read-only file system", "mount it for writing"),
    "forbidden": ("Permission denied", "Check owner and permissions"),
    "descriptors": ("Too many open files", "ulimit -n"),
    "file size": ("File too large", "ulimit -f"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_training_goes_on(fault: str, tmp_path: Path) -> None:
    """With `on_error="warn"`: steps 8 and 10 are not saved and told, with reason and remedy; 12 is saved again."""
    lived = live(fault, tmp_path, "warn")
    reason, remedy = FAULTS[fault]
    assert lived["error"] is None
    assert lived["step"] == 14
    assert {12, 14} <= {*lived["kept"]}
    assert not {8, 10} & {*lived["kept"]}
    failed = [text for text in lived["warnings"] if text.startswith("a save failed, training goes on")]
    assert len(failed) == 2
    for text in failed:
        assert reason in text
        assert str(tmp_path / "run") in text
        assert remedy in text


@pytest.mark.parametrize("fault", FAULTS)
def test_training_stops(fault: str, tmp_path: Path) -> None:
    """With `on_error="raise"` the next hook says so; what was saved before is intact, and the next start carries on."""
    lived = live(fault, tmp_path, "raise")
    reason, remedy = FAULTS[fault]
    assert 8 <= lived["step"] <= 11
    assert max(lived["kept"]) == 6
    assert reason in lived["error"]
    assert str(tmp_path / "run") in lived["error"]
    assert "Earlier snapshots are intact" in lived["error"]
    assert remedy in lived["error"]
