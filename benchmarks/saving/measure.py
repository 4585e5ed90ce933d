"""What a process used, and what a block of measurements comes to."""

from __future__ import annotations

import json
import mmap
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any


@dataclass
class Figures:
    """What one process measured. Times in seconds, sizes in bytes.

    ``inside`` has, for each save in order, the time that training stood still in callbacks; ``memory`` is the most that
    was resident beyond what was before training began; ``restore`` is the time from the beginning of a fit to the end
    of its first step when nothing of the files is in the page cache, ``restore_cached`` when all is; ``exact`` tells
    whether what was saved last is what training had.
    """

    wall: float = 0.0
    steps: list[float] = field(default_factory=list)
    inside: list[float] = field(default_factory=list)
    cpu: float = 0.0
    memory: int = 0
    written: int = 0
    saves: int = 0
    restore: float = 0.0
    restore_cached: float = 0.0
    exact: bool = True


class Meter:
    """Measures from its beginning to its end: wall time, processor time, memory, and bytes that went to disks."""

    def __init__(self, figures: Figures) -> None:
        self.figures = figures
        self._stop = threading.Event()

    def __enter__(self) -> Meter:
        self._cpu, self._written, self._resident = _cpu(), _written(), resident()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        self.began = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.figures.wall = time.perf_counter() - self.began
        self.figures.cpu = _cpu() - self._cpu
        self.figures.written = _written() - self._written
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            self.figures.memory = max(self.figures.memory, resident() - self._resident)


def resident() -> int:
    """Memory of this process that nothing else could use: mapped files, which can be read again, don't count."""
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return int(fields["RssAnon"].split()[0]) * 1024 + int(fields["RssShmem"].split()[0]) * 1024


def _cpu() -> float:
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def _written() -> int:
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["write_bytes"])


class Inside:
    """How long training stands still for each save: in the call that makes it, and in those that wait for it later."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def saves(self, function: Callable[..., Any], did: Callable[[Any], bool] = lambda result: True) -> Any:
        """The function, timed; each call that ``did`` save is one."""

        def call(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            result = function(*args, **kwargs)
            if did(result):
                self.times.append(time.perf_counter() - began)
            return result

        return call

    def waits(self, function: Callable[..., Any]) -> Any:
        """The function, timed; its calls are of the last save."""

        def call(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            result = function(*args, **kwargs)
            if self.times:
                self.times[-1] += time.perf_counter() - began
            return result

        return call


def evict(path: str | Path) -> None:
    """Drop a file, or all that a directory holds, from the page cache."""
    for file in _files(Path(path)):
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def warm(path: str | Path) -> None:
    """Read a file, or all that a directory holds, into the page cache."""
    for file in _files(Path(path)):
        with file.open("rb", buffering=0) as stream:
            while stream.read(8 << 20):
                pass


def reserve_memory(nbytes: int) -> None:
    """Touch so much memory and give it back, so that what is measured next gets its memory from this system.

    A virtual machine may give memory that was free for some seconds back to its host, and to get it again may take
    longer than a restore; whichever arm comes first would pay for it. In large pages: the system can give these out
    whole and in parts, and small ones only in parts.
    """
    with mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as pages:
        if hasattr(mmap, "MADV_HUGEPAGE"):
            pages.madvise(mmap.MADV_HUGEPAGE)
        for start in range(0, nbytes, mmap.PAGESIZE):
            pages[start] = 1


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else [inner for inner in path.rglob("*") if inner.is_file()]


def make_durable(path: str | Path) -> None:
    """Flush a file, or all that a directory holds, to the disk; then the names."""
    path = Path(path)
    for file in _files(path):
        _fsync(file)
    for directory in {path.parent, *([path] if path.is_dir() else [])}:
        _fsync(directory)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# Processes ------------------------------------------------------------------------------------------------------------


def in_a_process(module: str, arm: str, options: dict[str, Any], scratch: Path) -> Figures:
    """Run an arm of a module where nothing ran before."""
    with tempfile.TemporaryDirectory(dir=scratch, prefix=f"{arm}-".replace(" ", "-").replace("/", "-")) as directory:
        command = [sys.executable, "-m", module, arm, json.dumps({**options, "directory": directory})]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{module} {arm} ended with {done.returncode}:\n{done.stderr[-3000:]}")
        os.sync()  # what one arm left in the page cache is not the next one's to wait for
        return Figures(**json.loads(done.stdout.splitlines()[-1]))


def serve(arms: dict[str, Callable[[dict[str, Any]], Figures]]) -> None:
    """Be such a process: run the arm that the command line names, and print its figures."""
    figures = arms[sys.argv[1]](json.loads(sys.argv[2]))
    print(json.dumps(asdict(figures)))


@contextmanager
def scratch_in(place: str | None) -> Iterator[Path]:
    """A directory on the disk that is measured."""
    directory = Path(tempfile.mkdtemp(prefix="ckpt-bench-", dir=place))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


# Statistics -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Interval:
    """The median of some blocks, and the interval that holds it with some 95 % (by order statistics)."""

    middle: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Interval:
        """ValueError: there are none."""
        ordered = sorted(values)
        outside = next((k for k in range(len(ordered) // 2, 0, -1) if _tail(len(ordered), k) <= 0.025), 0)
        return cls(median(ordered), ordered[outside], ordered[-1 - outside])

    def text(self, digits: int = 2) -> str:
        """As a cell of a table."""
        return f"{self.middle:.{digits}f} ({self.low:.{digits}f}-{self.high:.{digits}f})"


def _tail(count: int, below: int) -> float:
    """The chance that fewer than ``below`` + 1 of ``count`` values lie under their median: the sign test's."""
    ways, total = 1.0, 0.0
    for k in range(below + 1):
        total += ways
        ways = ways * (count - k) / (k + 1)
    return total / 2**count
