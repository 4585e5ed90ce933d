"""What lies in the place of a run's file may be anything: a link out of the run, a pipe, a file without end.

Nothing outside of the run is touched, nothing waits for ever, memory is not eaten, and every error is one of ours.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ckpt_callbacks import CorruptSnapshotError, Run, StoreError
from ckpt_callbacks.cli import app
from ckpt_callbacks.errors import UnreachableError
from tests.faults.harness import FrozenLoop, checkpointer, trains, undisturbed

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes"),
]

REACHED, STEPS = 6, 10
PRECIOUS = b"PRECIOUS" * 10
HUGE = 1 << 40

OF_THE_RUN = ["run.json", "events.jsonl", "trace.bin", ".resuming", ".lock", "requests/x.request", "pins/NEWEST"]
OF_A_SNAPSHOT = [
    f"snapshots/NEWEST/{name}" for name in ("manifest.json", "model-00001-of-00002.safetensors", "state.json")
]
LATER = ["snapshots/NEWEST/.demoted", "best", "latest", ".run.json.partial"]
DIRECTORIES = ["snapshots", "pins", "damaged", "requests"]


def link(place: Path, victim: Path) -> None:
    place.symlink_to(victim)


def dangling_link(place: Path, victim: Path) -> None:
    place.symlink_to(victim.with_name("nothing"))


def loop(place: Path, victim: Path) -> None:
    place.symlink_to(place.name)


def pipe(place: Path, victim: Path) -> None:
    os.mkfifo(place)


def directory(place: Path, victim: Path) -> None:
    place.mkdir()


def bound_socket(place: Path, victim: Path) -> None:
    here = os.getcwd()
    os.chdir(place.parent)  # the name of a socket may not be long
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(place.name)
    os.chdir(here)


def without_end(place: Path, victim: Path) -> None:
    place.touch()
    os.truncate(place, HUGE)


KINDS = [link, dangling_link, loop, pipe, directory, bound_socket, without_end]
ALL = [*OF_THE_RUN, *OF_A_SNAPSHOT, *LATER]


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six steps."""
    return undisturbed(tmp_path_factory.mktemp("before") / "run")


@pytest.fixture
def run(before: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(before, tmp_path / "run", symlinks=True))


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file outside of the run."""
    path = tmp_path / "victim"
    path.write_bytes(PRECIOUS)
    return path


@contextmanager
def in_time(seconds: float = 20) -> Iterator[None]:
    """Waiting for ever is an error."""

    def late(number: int, frame: object) -> None:
        raise TimeoutError(f"nothing came of it within {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def put(run: Path, name: str, kind: Callable[[Path, Path], None], victim: Path) -> Path:
    """Put something else in the place of a file of the run."""
    newest = Run(run).latest
    assert newest is not None
    place = run / name.replace("NEWEST", newest.id)
    place.parent.mkdir(exist_ok=True)
    if os.path.lexists(place):
        place.unlink()
    kind(place, victim)
    return place


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("name", ALL)
def test_whatever_lies_there(run: Path, victim: Path, name: str, kind: Callable[[Path, Path], None]) -> None:
    """Who looks, repairs and trains gets an answer or an error of ours that names the place, and harms nobody."""
    place = put(run, name, kind, victim)
    with in_time():
        for command in ("ls", "verify", "explain", "show", "repair"):
            result = CliRunner().invoke(app, [command, str(run)])
            assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        trained, error = trains(run, STEPS, "warn", background=False)
    assert victim.read_bytes() == PRECIOUS
    assert os.listdir(victim.parent).count("nothing") == 0
    if error is None:
        assert trained.step == STEPS
    else:
        assert isinstance(error, StoreError)
        assert str(place) in str(error)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("name", OF_A_SNAPSHOT)
def test_a_snapshot_with_it_is_damaged(run: Path, victim: Path, name: str, kind: Callable[[Path, Path], None]) -> None:
    """Verified: the file is named; a resume steps back and sets the snapshot aside."""
    place = put(run, name, kind, victim)
    id = place.parent.name
    assert not Run(run).verify()
    assert any(place.name in problem.text for problem in Run(run).verify().problems)
    again = checkpointer(run)
    with in_time():
        FrozenLoop(again).run(STEPS)
    assert again.resumed is not None
    assert again.resumed.step < REACHED
    assert (run / "damaged" / id).is_dir()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_weights_are_read_from_files_only(run: Path, victim: Path, kind: Callable[[Path, Path], None]) -> None:
    """Arrays of a file that is not the snapshot's own would be those of whoever put the link there."""
    snapshot = Run(run).latest
    assert snapshot is not None
    put(run, OF_A_SNAPSHOT[1], kind, victim)
    with in_time(), pytest.raises(CorruptSnapshotError, match="model-00001-of-00002"):
        snapshot.weights()


def test_the_right_bytes_behind_a_link_are_refused_too(run: Path, tmp_path: Path) -> None:
    """They are whatever its owner makes of them after they were verified. A hard link is a file like any other."""
    snapshot = Run(run).latest
    assert snapshot is not None
    file = snapshot.path / "state.json"
    file.rename(tmp_path / "elsewhere")
    os.link(tmp_path / "elsewhere", file)
    assert snapshot.verify()
    file.unlink()
    file.symlink_to(tmp_path / "elsewhere")
    assert "symbolic link" in snapshot.verify().problems[0].text
    assert "symbolic link" in snapshot.verify(full=False).problems[0].text


@pytest.mark.parametrize("name", DIRECTORIES)
def test_a_directory_that_leads_elsewhere_is_not_written_to(run: Path, tmp_path: Path, name: str) -> None:
    """Nothing is written, moved or deleted there; the error names the path and the remedy. The run itself may lie
    behind a link."""
    outside = tmp_path / "outside"
    if (run / name).exists():
        (run / name).rename(outside)
    else:
        outside.mkdir()
    (run / name).symlink_to(outside)
    there = sorted(outside.rglob("*"))
    with pytest.raises(StoreError, match=rf"{name} is a link to .*outside.*itself may be a link"):
        FrozenLoop(checkpointer(run)).run(STEPS)
    with pytest.raises(StoreError, match="is a link to"):
        Run(run).repair()
    assert sorted(outside.rglob("*")) == there
    (run / name).unlink()
    outside.rename(run / name)
    (tmp_path / "by another name").symlink_to(run)
    assert FrozenLoop(checkpointer(tmp_path / "by another name")).run(STEPS).step == STEPS


def test_nor_when_it_comes_while_training(run: Path, tmp_path: Path) -> None:
    """Each save looks again."""
    outside = tmp_path / "outside"
    loop = FrozenLoop(checkpointer(run, on_error="raise", background=False))
    train = loop.advance

    def advance() -> None:
        train()
        if loop.step == REACHED + 1:
            (run / "snapshots").rename(outside)
            (run / "snapshots").symlink_to(outside)
            there.extend(sorted(outside.rglob("*")))

    there: list[Path] = []
    loop.advance = advance  # type: ignore[method-assign]
    with pytest.raises(StoreError, match="is a link to"):
        loop.run(STEPS)
    assert sorted(outside.rglob("*")) == there != []


@pytest.mark.parametrize("name", ["pins", "requests"])
def test_nobody_asks_or_pins_elsewhere(run: Path, tmp_path: Path, name: str) -> None:
    """Both work without the lock."""
    (tmp_path / "outside").mkdir()
    shutil.rmtree(run / name, ignore_errors=True)
    (run / name).symlink_to(tmp_path / "outside")
    with pytest.raises(StoreError, match=r"symbolic link lies in its place.*Move it out of the way"):
        Run(run).pin("latest") if name == "pins" else Run(run).request()
    assert os.listdir(tmp_path / "outside") == []


def test_what_is_no_file_is_a_pin_all_the_same(run: Path, victim: Path) -> None:
    """That the name is there is what counts: in doubt a snapshot is kept."""
    snapshot = Run(run).latest
    assert snapshot is not None
    for kind in (pipe, link, dangling_link, directory):
        place = run / "pins" / snapshot.id
        kind(place, victim)
        with in_time():
            assert snapshot.pinned
            assert Run(run).pins()[snapshot.id] is None
        place.rmdir() if kind is directory else place.unlink()


@pytest.mark.parametrize("name", ["model-00001-of-00002.safetensors", "state.json"])
def test_a_file_that_its_manifest_swells_is_damage(run: Path, name: str) -> None:
    """A manifest can promise any size, and a file without blocks have it: no memory is asked for that can't be had."""
    snapshot = Run(run).latest
    assert snapshot is not None
    swell(snapshot.path, name)
    again = checkpointer(run)
    FrozenLoop(again).run(STEPS)
    assert again.resumed is not None
    assert again.resumed.step < REACHED
    assert (run / "damaged" / snapshot.id).is_dir()


def test_a_snapshot_that_memory_can_not_hold_is_none_to_step_over(run: Path) -> None:
    """It may be good: the error names the size, and nothing is changed."""
    snapshot = Run(run).latest
    assert snapshot is not None
    promised = HUGE - 128
    header = (
        json.dumps({"big": {"dtype": "U8", "shape": [promised], "data_offsets": [0, promised]}}).ljust(120).encode()
    )
    (snapshot.path / "state.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    swell(snapshot.path, "state.safetensors")
    with pytest.raises(UnreachableError, match=r"state\.safetensors .*1,099,511,627,776 bytes.*more memory.*resume="):
        FrozenLoop(checkpointer(run)).run(STEPS)
    assert snapshot.path.is_dir()


def swell(directory: Path, name: str) -> None:
    """Let a file and what the manifest says of it grow beyond all memory, with a digest that is right."""
    from dataclasses import replace

    from ckpt_callbacks.store import read_manifest

    manifest = read_manifest(directory)
    os.truncate(directory / name, HUGE)
    files = {**manifest.files, name: replace(manifest.files[name], size=HUGE)}
    (directory / "manifest.json").write_bytes(replace(manifest, files=files).to_bytes())


def test_a_trace_without_end_is_begun_anew(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It never is larger than its slots, so such a one is not ours."""
    os.truncate(run / "trace.bin", HUGE)
    FrozenLoop(checkpointer(run)).run(STEPS)
    assert "trace.bin is not a trace of this version, or was damaged: it is begun anew" in caplog.text
    assert (run / "trace.bin").stat().st_size <= 32 * (1 + 32_768)


def test_weights_without_permission_are_out_of_reach(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file may be good."""
    snapshot = Run(run).latest
    assert snapshot is not None
    real = os.open

    def refused(path: str | Path, flags: int, *rest: int) -> int:
        if str(path).endswith(".safetensors"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, flags, *rest)

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(UnreachableError, match=r"safetensors can't be read now: Permission denied.*permissions"):
        snapshot.weights()


def test_a_server_that_lends_a_file_is_waited_for(run: Path) -> None:
    """A lease is called back, and the file opened then: not to wait is for pipes."""
    import fcntl

    if not hasattr(fcntl, "F_SETLEASE"):
        pytest.skip("this system has no leases")
    descriptor = os.open(run / "events.jsonl", os.O_RDONLY)
    called: list[int] = []

    def give_back(number: int, frame: object) -> None:
        called.append(number)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)

    before = signal.signal(signal.SIGIO, give_back)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        with in_time():
            Run(run)._store.journal.append("noted")
    finally:
        os.close(descriptor)
        signal.signal(signal.SIGIO, before)
    assert called
    assert b'"noted"' in (run / "events.jsonl").read_bytes()
