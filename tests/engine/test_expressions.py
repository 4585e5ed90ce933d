"""Triggers and rules from text: what can be written can be read back, and nothing else runs."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckpt_callbacks import ConfigurationError, every_steps, keep_best, keep_last, on_best, on_signal
from ckpt_callbacks.engine import Trigger, parse_rules, parse_trigger
from tests.engine.strategies import plain_triggers


@given(plain_triggers)
def test_every_trigger_is_read_back_from_its_repr(trigger: Trigger) -> None:
    """Which is what a snapshot's manifest has of it."""
    if "timedelta" not in repr(trigger):
        assert parse_trigger(repr(trigger)).bind(()) == trigger.bind(())


def test_as_people_write_them() -> None:
    """Joined by signs or by commas."""
    assert parse_trigger("every_steps(100) | on_best('val_loss')") == (every_steps(100) | on_best("val_loss"))
    assert parse_trigger(" every_steps(100), on_best('val_loss') ") == (every_steps(100) | on_best("val_loss"))
    assert parse_trigger("on_signal('SIGUSR1', leave=False)") == on_signal("SIGUSR1", leave=False)
    assert parse_rules("keep_last(2), keep_best(1, Monitor('x', 'min'))")[0] == keep_last(2)
    assert parse_rules("[keep_best(3, 'val_loss')]") == (keep_best(3, "val_loss"),)


@pytest.mark.parametrize(
    "text",
    [
        *("", "keep_last", "keep_last(2", "keep_last(n)", "keep_last(-1)", "keep_last(2, 3, 4)", "keep_last(x=2)"),
        *(
            "__import__('os').system('true')",
            "keep_last((lambda: 2)())",
            "[x for x in ()]",
            "open('x')",
            "keep_last(*[2])",
        ),
        *("keep_last(2) or keep_best(1)", "1 + 1", "every_steps(3)", "keep_when(print)", "(" * 500, "\0", "9" * 10_001),
        *("-" * 900 + "1", "not " * 900 + "1", "a" + ".a" * 900, "|".join(["on_end()"] * 900), "keep_last(2, **{})"),
    ],
)
def test_what_is_no_rule_is_refused(text: str) -> None:
    """By an error of ours that says what was expected; nothing of it is evaluated."""
    with pytest.raises(ConfigurationError, match="expected"):
        parse_rules(text)


@given(st.text())
def test_any_text_is_a_rule_or_an_error_of_ours(text: str) -> None:
    """It may come from a file that somebody else wrote."""
    for parse in (parse_rules, parse_trigger):
        with contextlib.suppress(ConfigurationError):
            assert parse(text)
