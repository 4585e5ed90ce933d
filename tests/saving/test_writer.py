"""The writer: order, bounds, and errors that reach whoever asks."""

from __future__ import annotations

import threading

import pytest

from ckpt_callbacks.saving.writer import Writer


def test_jobs_run_in_order_on_one_thread():
    """What was submitted first is durable first."""
    done: list[tuple[int, str]] = []
    writer = Writer()
    for number in range(5):
        writer.submit(lambda number=number: done.append((number, threading.current_thread().name)))
    writer.close()
    assert done == [(number, "ckpt-writer") for number in range(5)]


def test_at_most_one_waits():
    """While one job runs and one waits, a third submit blocks: memory holds two snapshots at worst."""
    release, writer = threading.Event(), Writer()
    started = threading.Event()
    writer.submit(lambda: (started.set(), release.wait()))
    started.wait()
    writer.submit(lambda: None)
    third = threading.Thread(target=lambda: writer.submit(lambda: None))
    third.start()
    third.join(0.2)
    assert third.is_alive()
    release.set()
    third.join()
    writer.close()


def test_errors_stay_in_their_future():
    """A failed job neither kills the thread nor touches the next job."""
    writer = Writer()
    failed = writer.submit(lambda: 1 / 0)
    worked = writer.submit(lambda: "fine")
    assert worked.result() == "fine"
    with pytest.raises(ZeroDivisionError):
        failed.result()
    writer.close()


def test_in_the_foreground():
    """Without a background thread the job has run when submit returns."""
    future = Writer(background=False).submit(lambda: threading.current_thread())
    assert future.done()
    assert future.result() is threading.current_thread()


def test_an_interpreter_that_goes_down_writes_by_itself(monkeypatch):
    """It starts no threads any more, and what an exception left is saved all the same."""

    def refuses(self) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuses)
    writer = Writer()
    assert writer.submit(lambda: threading.current_thread()).result(timeout=0) is threading.current_thread()
    writer.close()


def test_a_closed_writer_may_be_used_again():
    """A second fit of the same callback starts a new thread; no thread is left behind."""
    before = set(threading.enumerate())
    writer = Writer()
    for _ in range(2):
        assert writer.submit(lambda: 7).result() == 7
        writer.close()
    assert set(threading.enumerate()) <= before
