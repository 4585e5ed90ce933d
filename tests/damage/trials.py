"""Trials: a run of some snapshots, damaged in one way after the other; what must be true each time."""

from __future__ import annotations

import json
import logging
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ckpt_callbacks import Run, every_steps, keep_all
from ckpt_callbacks.checkpointer import BaseCheckpointer
from ckpt_callbacks.run import Verification
from ckpt_callbacks.state.captured import Captured
from tests.damage.damages import Damage, of_a_file, of_a_pair
from tests.loop import Loop
from tests.state.trees import bits

__all__ = ["RUNS", "Trial", "quiet"]

STEPS, EVERY = 6, 2
FROZEN = 1 << 17
"""So many numbers that aren't trained have a file of their own, and the weights an index."""

RUNS = {"one file of weights": 0, "several, with an index": FROZEN}
"""Kinds of runs -> how many weights of theirs are frozen."""


class Training(Loop):
    """A small training that remembers its state at each step, bit for bit."""

    def __init__(self, checkpointer: BaseCheckpointer, frozen: int) -> None:
        super().__init__(checkpointer)
        self.frozen, self.moments, self.history = np.arange(frozen, dtype=np.float64), np.linspace(0, 1, 7), [0.5]
        self.states: dict[int, Any] = {}

    def advance(self) -> None:
        super().advance()
        self.moments = self.moments * 0.9 + self.step
        self.history.append(1 / self.step)

    def capture(self) -> Captured:
        weights = {"w": self.weights, "b": self.weights[:2] / 3}
        frozen = {"frozen": self.frozen} if len(self.frozen) else {}
        rest = {"step": self.step, "moments": self.moments, "history": self.history, "seed": 2**80 + self.step}
        self.states[self.step] = bits(weights | frozen), bits(rest)
        return Captured(weights | frozen, rest, frozen=frozenset(frozen))


class Trial:
    """A run of three snapshots, and all that can happen to the newest and to the run's own file.

    Args:
        kind: one of `RUNS`.
        scratch: a directory for it.
        stride: only each so many-th place of a file is tried.

    Attributes:
        names: the files to damage: ``run.json``, and those of the newest snapshot.
    """

    def __init__(self, kind: str, scratch: Path, stride: int = 1) -> None:
        self._scratch, self._stride, self._copies = scratch, stride, 0
        self._begins = scratch / "begins"
        self._states = Training(_checkpointer(self._begins), RUNS[kind]).run(STEPS).states
        snapshots = Run(self._begins).snapshots()
        self._ids = [one.id for one in reversed(snapshots)]
        self._steps = {one.id: one.step for one in snapshots}
        self._files = _contents(self._begins)
        self.names = ["run.json", *(Path(name).name for name in sorted(self._files) if self._ids[0] in name)]

    def damages(self, name: str) -> Iterator[tuple[str, Damage]]:
        """All that can happen to one of these: alone, together with a further one of the same snapshot, and with its
        own like in the older one."""
        path = self._path(name)
        yield from of_a_file(path, self._files[path], self._stride)
        for other in self.names[self.names.index(name) + 1 :]:
            yield from of_a_pair(path, self._path(other), self._files)
        newest, older, _ = self._ids
        yield from of_a_pair(path, path.replace(newest, older), self._files)

    def _path(self, name: str) -> str:
        return name if name == "run.json" else f"snapshots/{self._ids[0]}/{name}"

    def survive_all(self, name: str) -> Counter[str]:
        """Let each of these happen, and count them by their kinds. An AssertionError says what did not hold."""
        counts: Counter[str] = Counter()
        for where, damage in self.damages(name):
            self.survive(where, damage)
            counts[damage.kind] += 1
        return counts

    def survive(self, where: str, damage: Damage) -> None:
        """Damage a copy of the run, and look: a full check names each file that is damaged and no other, a process that
        starts again has the newest snapshot that is not damaged, bit for bit, and what was damaged lies aside, whole.
        """
        run = self._copy()
        damage.do(run)
        files = _contents(run)
        try:
            hurt = self._named(run, damage)
            self._resumed(run, hurt)
            self._kept(run, files, hurt)
        except Exception as error:
            raise AssertionError(f"{damage}, {where}: {error}") from error
        shutil.rmtree(run)

    def _copy(self) -> Path:
        """A copy that nobody in this process has ever seen: what is known of a run goes by its path."""
        self._copies += 1
        return Path(shutil.copytree(self._begins, self._scratch / str(self._copies), symlinks=True))

    def _named(self, run: Path, damage: Damage) -> set[str]:
        """The ids of the damaged snapshots, all of which a full check has named with their files, and no other."""
        report = Run(run).verify()
        expected = {_owner(name) for name in damage.files}
        if damage.files == {"run.json": None}:  # it may be missing, but not in silence
            assert "run.json is missing" in str(report)
            expected.clear()
        assert {problem.snapshot for problem in report.problems} == expected, f"the check says: {report}"
        assert report.ok == (not expected)
        for name in damage.files if expected else ():
            if _manifest_of(name) not in damage.files or name == _manifest_of(name):  # it says what the others must be
                assert _names(report, name), f"the check does not name {name}: {report}"
        return expected - {"run.json"}

    def _resumed(self, run: Path, hurt: set[str]) -> None:
        """A process that starts again has the newest good snapshot."""
        good = next(id for id in self._ids if id not in hurt)
        again = _checkpointer(run)
        restored = again.begin({})
        again.end()
        assert restored is not None, "a resume found nothing"
        assert restored.snapshot.id == good, f"a resume took {restored.snapshot.id}: expected {good}"
        assert (bits(restored.weights), bits(restored.rest)) == self._states[self._steps[good]], "other bits came back"

    def _kept(self, run: Path, files: Mapping[str, bytes], hurt: set[str]) -> None:
        """No byte of a snapshot was lost or changed, and the run is whole again."""
        now = _contents(run)
        for name, content in files.items():
            if name.startswith("snapshots/"):
                place = name.replace("snapshots/", "damaged/") if _owner(name) in hurt else name
                assert now.get(place) == content, f"{place} is not as it was"
        assert not [name for name in now if name.startswith("snapshots/") and _owner(name) in hurt]
        assert json.loads(now["run.json"])["run_id"] == json.loads(self._files["run.json"])["run_id"]
        report = Run(run).verify()
        assert report.ok, str(report)
        assert report.notes == (), str(report)


@contextmanager
def quiet() -> Iterator[None]:
    """No lines for people meanwhile."""
    logging.disable()
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _checkpointer(directory: Path) -> BaseCheckpointer:
    return BaseCheckpointer(directory, save=every_steps(EVERY), keep=keep_all(), durability="none", background=False)


def _contents(run: Path) -> dict[str, bytes]:
    """All files below snapshots and those set aside, and `run.json`: path within the run -> bytes."""
    paths = [path for folder in ("snapshots", "damaged") for path in (run / folder).rglob("*") if path.is_file()]
    return {path.relative_to(run).as_posix(): path.read_bytes() for path in [*paths, run / "run.json"] if path.exists()}


def _names(report: Verification, name: str) -> bool:
    """Whether a check names a file together with its snapshot."""
    file = name.rpartition("/")[2]
    return any(problem.snapshot == _owner(name) and file in problem.text for problem in report.problems)


def _manifest_of(name: str) -> str:
    return f"{name.rpartition('/')[0]}/manifest.json"


def _owner(name: str) -> str:
    """The id of the snapshot whose file that is; `run.json` is its own."""
    return name.split("/")[1] if "/" in name else name
