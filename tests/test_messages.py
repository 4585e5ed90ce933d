"""What a person reads while training runs."""

from __future__ import annotations

import logging

import pytest

from ckpt_callbacks import messages


def test_short_work_is_silent(caplog):
    """Nothing is shown for work that is done within the patience of a person."""
    with caplog.at_level(logging.INFO, "ckpt_callbacks"):
        assert list(messages.steps(3, "replaying")) == [0, 1, 2]
    assert not caplog.records


def test_long_work_says_what_it_does(caplog, monkeypatch):
    """Where nobody watches a terminal, one line says what takes so long."""
    monkeypatch.setattr(messages, "PATIENCE", -1.0)
    with caplog.at_level(logging.INFO, "ckpt_callbacks"):
        assert list(messages.steps(3, "replaying batches")) == [0, 1, 2]
    assert [record.message for record in caplog.records] == ["replaying batches: 3 in all, which takes a while"]


def test_work_that_ends_early_is_let_go(monkeypatch):
    """A consumer that raises leaves no bar behind."""
    monkeypatch.setattr(messages, "PATIENCE", -1.0)
    work = messages.steps(3, "replaying")
    next(work)
    with pytest.raises(ValueError, match="data"):
        work.throw(ValueError("data"))
    assert list(work) == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("näive · ✓\nsecond line", "näive · ✓\nsecond line"),
        ("\x1b]0;title\x07\x1b[2J\r", "\\x1b]0;title\\x07\\x1b[2J\\r"),
        ("\udcff\udcfe", "\\udcff\\udcfe"),
    ],
)
def test_what_steers_a_terminal_or_can_not_be_encoded_is_escaped(caplog, text, shown):
    """A name or a note is read, whatever is in it."""
    messages.warn(text)
    assert caplog.messages == [shown]
    assert messages.printable(text).encode()
