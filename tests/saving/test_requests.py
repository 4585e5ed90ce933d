"""Requests: from threads, and from other processes by way of the inbox."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from ckpt_callbacks.saving import Requests, requests
from ckpt_callbacks.store import Inbox, Message


def test_taken_once_and_answered() -> None:
    """Who no longer wants it, and whose request was withdrawn, is left out."""
    some = Requests()
    assert not some
    assert some.take() == []
    first, second, third = some.add(), some.add("note"), some.add("another", stop=True)
    fourth = some.add(is_wanted=lambda: False)
    third.cancel()
    assert bool(some)
    taken = some.take()
    assert (taken, bool(some)) == ([first, second], False)
    for one in taken:
        one.answer("snapshot")
    assert first.result() == second.result() == "snapshot"
    assert third.cancelled()
    assert not fourth.done()


def test_what_was_not_saved_is_put_back_before_later_ones() -> None:
    """In the order in which it was asked for."""
    some = Requests()
    first = some.add("first")
    taken = some.take()
    second = some.add("second")
    some.put_back(taken)
    assert some.take() == [first, second]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The inbox is looked into all the time."""
    monkeypatch.setattr(requests, "INTERVAL", 0.01)


def await_one(some: Requests) -> None:
    """Return when there is a request."""
    pause = threading.Event()
    for _ in range(1000):
        if some:
            return
        pause.wait(0.01)
    pytest.fail("no request arrived in 10 s")


@pytest.mark.usefixtures("quick")
def test_other_processes_are_heard(tmp_path: Path) -> None:
    """Each request once; with its note, its wish to stop, and its answer, good or bad."""
    inbox, some, before = Inbox(tmp_path), Requests(), set(threading.enumerate())
    early = inbox.post("asked before it began")
    some.listen(inbox)
    try:
        await_one(some)
        good = some.take()
        late = inbox.post("late", stop=True, wants_answer=True)
        await_one(some)
        (bad,) = some.take()
        assert ([one.note for one in good], bad.note, bad.stop) == (["asked before it began"], "late", True)
        bad.answer(OSError("the disk is full"))
        assert inbox.take_answer(late) == {"error": "the disk is full"}
        assert [message.name for message in inbox.messages()] == [early]
    finally:
        some.hang_up()
    assert set(threading.enumerate()) <= before


@pytest.mark.usefixtures("quick")
def test_a_place_that_is_away_for_a_while_is_asked_again(tmp_path: Path) -> None:
    """A network that fails must not end the thread."""
    (tmp_path / "requests").write_text("no directory yet")
    some = Requests()
    some.listen(Inbox(tmp_path))
    try:
        threading.Event().wait(0.1)
        (tmp_path / "requests").unlink()
        Inbox(tmp_path).post("now")
        await_one(some)
    finally:
        some.hang_up()


@pytest.mark.usefixtures("quick")
def test_a_disk_that_hangs_does_not_keep_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The end waits for a while, says so, and leaves the thread to itself."""
    monkeypatch.setattr(requests, "PATIENCE", 0.05)
    answers, asked = threading.Event(), threading.Event()

    class Hangs(Inbox):
        def messages(self) -> list[Message]:
            if threading.current_thread() is not threading.main_thread():
                asked.set()
                answers.wait(20)
            return []

    some, before = Requests(), {*threading.enumerate()}
    some.listen(Hangs(tmp_path))
    (thread,) = {*threading.enumerate()} - before
    try:
        assert asked.wait(10)
        some.hang_up()
        assert "has not answered for 0.05 s" in caplog.text
        assert thread.is_alive()
        assert thread.daemon
    finally:
        answers.set()
        thread.join(10)
    assert not thread.is_alive()
