"""Requests from other processes: files that appear at once and go when they are answered."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from ckpt_callbacks import StoreError
from ckpt_callbacks.store import Inbox, Message


@pytest.fixture
def inbox(tmp_path: Path) -> Inbox:
    return Inbox(tmp_path)


def test_a_request_arrives_and_is_answered(inbox: Inbox) -> None:
    """With everything that the sender said; after the answer nothing is left of it."""
    assert inbox.messages() == []
    name = inbox.post("before the merge", stop=True, wants_answer=True)
    message = Message(name, "before the merge", stop=True, wants_answer=True)
    assert inbox.messages() == [message]
    assert inbox.take_answer(name) is None
    inbox.answer(message, id="000000010-abcdef")
    assert inbox.messages() == []
    assert inbox.take_answer(name) == {"id": "000000010-abcdef"}
    assert list(inbox.path.iterdir()) == []


def test_who_does_not_wait_gets_no_answer(inbox: Inbox) -> None:
    """Nobody would remove it."""
    inbox.post()
    inbox.answer(inbox.messages()[0], id="x")
    assert list(inbox.path.iterdir()) == []


def test_several_are_heard_in_order(inbox: Inbox) -> None:
    """As they were sent; one that is withdrawn is not."""
    names = [inbox.post(str(number)) for number in range(3)]
    inbox.withdraw(names[1])
    assert [message.note for message in inbox.messages()] == ["0", "2"]


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b"[" * 100_000])
def test_what_can_not_be_read_is_no_request(inbox: Inbox, content: bytes) -> None:
    """Anyone who may write to the directory may leave anything there."""
    inbox.post()
    (inbox.path / "1.request").write_bytes(content)
    (inbox.path / "readme.txt").write_bytes(content)
    assert len(inbox.messages()) == 1


def test_a_note_is_a_short_text(inbox: Inbox) -> None:
    """It comes to stand in every list of the snapshots; and what anybody leaves there must not keep the training."""
    inbox.post("word " * 10_000)
    (inbox.path / "1.request").write_text(json.dumps({"note": "a." * 16_000}))
    began = time.process_time()
    assert [len(message.note or "") for message in inbox.messages()] == [1996, 1]
    assert time.process_time() - began < 1


def test_odd_values_are_left_out(inbox: Inbox) -> None:
    """A note is text; to stop, somebody must have said so."""
    inbox.post()
    (inbox.path / "1.request").write_text('{"note": 5, "stop": "yes", "wants_answer": 1}')
    assert Message("1") in inbox.messages()


def test_a_place_that_can_not_be_written_to(tmp_path: Path) -> None:
    """Whoever asks must know that nobody was asked."""
    (tmp_path / "requests").write_text("a file")
    with pytest.raises(StoreError, match="nothing was asked for"):
        Inbox(tmp_path).post()


def test_an_answer_that_was_cut_short_is_written_anew(inbox: Inbox) -> None:
    """The process that began it was killed; the next one answers, and whoever asked must not wait in vain."""
    name = inbox.post(wants_answer=True)
    (inbox.path / f".{name}.answer.partial").write_bytes(b'{"i')
    inbox.answer(inbox.messages()[0], id="000000010-abcdef")
    assert inbox.take_answer(name) == {"id": "000000010-abcdef"}
    assert list(inbox.path.iterdir()) == []


def test_what_nobody_comes_back_for_goes_a_day_later(inbox: Inbox) -> None:
    """Whoever asked was killed while it wrote, or before it took the answer. A request that can be read waits on."""
    asked = inbox.post()
    for name in (".1-aa.request.partial", "1-aa.request", "2-bb.answer", "of-others"):
        (inbox.path / name).write_bytes(b"{")
    everything = {path.name for path in inbox.path.iterdir()}
    inbox.clean()
    assert {path.name for path in inbox.path.iterdir()} == everything
    for path in inbox.path.iterdir():
        os.utime(path, (0, 0))
    inbox.clean()
    assert {path.name for path in inbox.path.iterdir()} == {f"{asked}.request", "of-others"}
