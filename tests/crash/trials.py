"""Trials: one operation, killed at every call that it makes, and the power cut at every one."""

from __future__ import annotations

import logging
import os
import random
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ckpt_callbacks import Run
from ckpt_callbacks.store import LocalStore, machine, provenance
from tests.crash.calls import Call, Calls, Death, Moment
from tests.crash.disks import Disk, State, lay_out, seen
from tests.crash.lives import Life, live
from tests.crash.operations import Operation
from tests.crash.promises import assert_exact, assert_kept, damaged, held, listing

__all__ = ["Committed", "Trial", "in_memory", "quiet", "recorded", "varied", "warm"]

RUN = Path("runs") / "digits"


@dataclass(frozen=True)
class Committed:
    """Told between two calls: a snapshot of that step is durable, as far as the store says."""

    step: int


Told = Call | Committed
Cut = tuple[State, list[int]]
"""What a power cut has left, and what had been reported by then."""


@contextmanager
def in_memory() -> Iterator[Path]:
    """A scratch directory, in memory where the system has such a place: many trials write much."""
    memory = "/dev/shm"
    with TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)


def quiet() -> None:
    """For the rest of this process: no lines for people, and no waiting for a disk, which a kill does not need."""
    logging.getLogger("ckpt_callbacks").setLevel(logging.CRITICAL)
    os.fsync = lambda descriptor: None  # type: ignore[assignment]


def _quietly(deed: Callable[[Path], object], run: Path) -> None:
    quiet()
    deed(run)


def warm() -> None:
    """Find out now, once, what every process asks of its machine: forks know it then."""
    provenance(), machine()


def recorded(folder: Path, tell: Callable[[Any], None], death: Death | None = None) -> Calls:
    """From now on, record what this process changes in a folder, and tell what the store says is committed."""
    quiet()
    calls, commit = Calls(folder, tell, death), LocalStore.commit

    def committed(self: LocalStore, *arguments: Any) -> Any:
        manifest = commit(self, *arguments)
        calls.mark(Committed(manifest.progress.step))
        return manifest

    LocalStore.commit = committed  # type: ignore[method-assign]
    return calls


class Trial:
    """An operation, and what it does when nobody interrupts.

    Args:
        operation: which one.
        scratch: a directory for it.

    Attributes:
        made: the calls of the operation, with what was `Committed` between them.
        unseen: changes that went by no door that is watched.
    """

    def __init__(self, operation: Operation, scratch: Path) -> None:
        self._operation, self._scratch = operation, scratch
        (scratch / "begins").mkdir(parents=True)
        warm()
        live(lambda tell: _quietly(operation.prepare, scratch / "begins" / RUN))
        self._begins = seen(scratch / "begins")
        begun = scratch / "begins" / RUN
        self._damaged = damaged(begun)
        self._before = held(begun, self._damaged)
        with self._laid_out(self._begins) as run:
            life = self._recorded(operation.act, run)
            self.made: list[Told] = life.told
            self.unseen: list[str] = life.result
            self._after = held(run, self._damaged)
            self._end = self._finished(run)

    def deaths(self) -> Iterator[Death]:
        """Every place to die at."""
        counts: Counter[str] = Counter()
        for call in self._counted():
            counts[call.thread] += 1
            moments: tuple[Moment, ...] = ("before", "amid", "after") if len(call.data) > 1 else ("before", "after")
            yield from (Death(call.thread, counts[call.thread], moment) for moment in moments)

    def last_deaths(self) -> Iterator[tuple[Call, Death]]:
        """Each call, and the death that comes right after it."""
        after = [death for death in self.deaths() if death.moment == "after"]
        yield from zip(self._counted(), after, strict=True)

    def kill(self, death: Death) -> None:
        """Do it, die there, look at what is left, and carry on to the end."""
        with self._laid_out(self._begins) as run:
            life = self._recorded(self._operation.act, run, death)
            assert life.killed, f"{death}: nobody died, there are fewer calls now"
            self._judge(run, _reported(life.told))

    def states(self, rng: random.Random, further: int) -> list[Cut]:
        """What power cuts may leave, at every instant. Each once.

        Args:
            rng: chooses.
            further: how many states there are at each instant beside the plain ones.
        """
        return list(_states(self._disk(()), [], self.made, lambda disk: disk.states(rng, further)))

    def some_states(self, rng: random.Random, count: int) -> list[Cut]:
        """The least that is left at every instant, and so many others."""
        least = list(_states(self._disk(()), [], self.made, Disk.least))
        return least + varied(self.states(rng, further=1), rng, count)

    def cut_after(self, death: Death, then: Callable[[Path], object], rng: random.Random, count: int) -> int:
        """Die there; then cut the power while the next process does something, in so many ways beside the plain ones.

        What the dead process did not make durable isn't, although the next one has seen it.
        """
        with self._laid_out(self._begins) as run:
            first = self._recorded(self._operation.act, run, death).told
            second = self._recorded(then, run).told
            after = held(run, self._damaged)
        least = list(_states(self._disk(first), _reported(first), second, Disk.least))
        others = list(_states(self._disk(first), _reported(first), second, lambda disk: disk.states(rng, 0)))
        chosen = least + varied(others, rng, count)
        for state, reported in chosen:
            with self._laid_out(state) as run:
                assert_kept(run, self._before, after, reported, but=self._damaged)
        return len(chosen)

    def cut(self, state: State, reported: list[int]) -> None:
        """Look at what a power cut has left, and carry on to the end."""
        with self._laid_out(state) as run:
            self._judge(run, reported)

    def _disk(self, made: Iterable[Told]) -> Disk:
        """The disk as it was before the operation, and then these calls."""
        disk = Disk(self._scratch / "begins")
        for call in made:
            if isinstance(call, Call):
                disk.make(call)
        return disk

    def _counted(self) -> list[Call]:
        return [call for call in self.made if isinstance(call, Call) and call.name != "look"]

    def _recorded(self, deed: Callable[[Path], object], run: Path, death: Death | None = None) -> Life:
        def work(tell: Callable[[Any], None]) -> list[str]:
            calls = recorded(self._scratch / "at", tell, death)
            deed(run)
            return calls.unseen

        return live(work)

    def _judge(self, run: Path, reported: list[int]) -> None:
        assert_kept(run, self._before, self._after, reported, but=self._damaged)
        assert self._finished(run) == self._end

    def _finished(self, run: Path) -> dict[str, Any]:
        """Carry on to the end, in a new process; what lies there then, and what that process left open."""

        def work(tell: Callable[[Any], None]) -> int:
            quiet()
            descriptors = len(os.listdir("/dev/fd"))
            self._operation.finish(run)
            assert [one.name for one in threading.enumerate() if one.name.startswith("ckpt")] == []
            return len(os.listdir("/dev/fd")) - descriptors

        life = live(work)
        assert_exact(Run(run).get("latest"), seed=0)
        return {**listing(run), "descriptors": life.result}

    @contextmanager
    def _laid_out(self, state: State) -> Iterator[Path]:
        folder = self._scratch / "at"
        folder.mkdir()
        try:
            lay_out(state, folder)
            yield folder / RUN
        finally:
            shutil.rmtree(folder)


def _reported(told: Iterable[Told]) -> list[int]:
    return [one.step for one in told if isinstance(one, Committed)]


def varied(states: list[Cut], rng: random.Random, count: int) -> list[Cut]:
    """Some of the states, and as various ones as there are: in most, the same names stand over other torn bytes."""
    shuffled, known, places = rng.sample(states, len(states)), Counter[Any](), []
    for state, reported in shuffled:
        shape = (*state, *reported)
        places.append(known[shape])
        known[shape] += 1
    ordered = sorted(zip(places, shuffled, strict=True), key=lambda one: one[0])
    return [one for _, one in ordered[:count]]


def _states(
    disk: Disk, before: list[int], made: Iterable[Told], left: Callable[[Disk], Iterable[State]]
) -> Iterator[Cut]:
    """What is left at each instant of some calls, each once."""
    reported, known = list(before), set()
    for call in (None, *made):
        if isinstance(call, Committed):
            reported.append(call.step)
        elif call is not None:
            disk.make(call)
        for state in left(disk):
            key = hash((*reported, *state.items()))
            if key not in known:
                known.add(key)
                yield state, list(reported)
