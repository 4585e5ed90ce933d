"""What can't work is refused where it is given, with a sentence that names what was found and what was expected."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
import torch

from ckpt_callbacks import (
    ConfigurationError,
    Monitor,
    every,
    every_batches,
    every_epochs,
    every_steps,
    keep_all,
    keep_best,
    keep_every_steps,
    keep_last,
    keep_when,
    on_best,
    on_end,
    on_exception,
    on_signal,
    when,
)
from ckpt_callbacks.engine import resolve_monitors, resolve_rules, resolve_triggers
from tests.ids import stable

NAN, INFINITY = float("nan"), float("inf")
LOSS = (Monitor("val_loss"),)


def refused(make: Callable[[Any], object], bad: object) -> None:
    """Making it fails, and the message tells the bad value and what would be a good one."""
    with pytest.raises(ConfigurationError, match="expected") as failure:
        make(bad)
    assert repr(bad) in str(failure.value)


@pytest.mark.parametrize(
    "bad", [0, -1, True, False, 1.0, 1.5, "x", "3", NAN, INFINITY, [], [1], None, np.True_], ids=stable
)
@pytest.mark.parametrize("make", [every_steps, every_batches, every_epochs, keep_last, keep_best, keep_every_steps])
def test_a_count_is_a_whole_number_of_at_least_one(make: Callable[[Any], object], bad: object) -> None:
    """Zero does not mean "never" or "all"; True is no 1, and 1.0 no whole number."""
    refused(make, bad)


@pytest.mark.parametrize("make", [every_steps, every_batches, every_epochs, keep_last, keep_best, keep_every_steps])
@pytest.mark.parametrize("three", [np.int64(3), np.uint8(3), np.array(3), torch.tensor(3)], ids=stable)
def test_a_count_may_come_from_numpy_or_torch(make: Callable[[Any], object], three: object) -> None:
    """A whole number of theirs is a whole number, and is kept as an int."""
    assert make(three) == make(3)
    assert repr(make(three)) == f"{make.__name__}(3)"


@pytest.mark.parametrize(
    "bad",
    [
        *(0, -1, True, NAN, INFINITY, 10**400, None, [], b"30", timedelta(0), timedelta(minutes=-1)),
        *("", "x", "30", "m", "-3m", "3 min", "0s", "1h-5m"),
    ],
    ids=stable,
)
def test_an_interval_is_some_time(bad: object) -> None:
    """None at all, less than none, and for ever are no intervals; a string has units."""
    refused(every, bad)


@pytest.mark.parametrize("bad", [0, -1, True, 1.5, NAN, [], ["val_loss"], "", b"val_loss"], ids=stable)
@pytest.mark.parametrize(
    "make", [Monitor, on_best, lambda bad: keep_best(1, bad)], ids=["Monitor", "on_best", "keep_best"]
)
def test_a_metric_is_a_name(make: Callable[[Any], object], bad: object) -> None:
    """What isn't the name of a metric is refused at once, not when the first metric is logged."""
    refused(make, bad)


@pytest.mark.parametrize("bad", [0, True, None, "x", "MIN", []], ids=stable)
def test_a_mode_is_min_max_or_auto(bad: Any) -> None:
    """There is no fourth."""
    refused(lambda bad: Monitor("val_loss", bad), bad)


@pytest.mark.parametrize("bad", [-1, -0.1, True, NAN, INFINITY, "x", None, []], ids=stable)
def test_a_min_delta_is_a_finite_number_that_is_not_negative(bad: Any) -> None:
    """A negative one would call a worse value best."""
    refused(lambda bad: Monitor("val_loss", min_delta=bad), bad)


def test_relative_is_a_switch_not_the_fraction() -> None:
    """``relative=0.1`` would look like a fraction and mean none."""
    refused(lambda bad: Monitor("val_loss", relative=bad), 0.1)


@pytest.mark.parametrize("bad", [0, -1, True, 1.5, NAN, "x", None, [], int, every_steps(3)], ids=stable)
def test_a_predicate_is_a_function(bad: Any) -> None:
    """Neither a class, which is always true of anything, nor a trigger, which takes two arguments."""
    refused(when, bad)


@pytest.mark.parametrize("bad", [0, -1, True, 1.5, NAN, "x", None, [], int, keep_last(3)], ids=stable)
def test_a_predicate_of_records_is_a_function(bad: Any) -> None:
    """Neither a class nor a rule, which takes all records."""
    refused(keep_when, bad)


@pytest.mark.parametrize("bad", [0, -1, True, 1.5, NAN, "x", "", [], (), int], ids=stable)
def test_save_takes_triggers(bad: Any) -> None:
    """Nor would an empty list ever save anything."""
    refused(lambda bad: resolve_triggers(bad, LOSS), bad)


@pytest.mark.parametrize("bad", [0, -1, True, 1.5, NAN, "x", None, [[]], int], ids=stable)
def test_a_list_of_triggers_has_only_triggers(bad: Any) -> None:
    """One that is none among good ones is named."""
    refused(lambda bad: resolve_triggers([every_steps(3), bad], LOSS), bad)
    refused(lambda bad: every_steps(3) | bad, bad)
    refused(lambda bad: bad & every_steps(3), bad)


MAKERS = [every, every_batches, every_epochs, every_steps, on_best, on_end, on_exception, on_signal, when]


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize(
    "give",
    [lambda maker: resolve_triggers(maker, LOSS), lambda maker: maker | on_end(), when],
    ids=["save=", "|", "when"],
)
def test_a_trigger_without_its_brackets_is_refused(maker: Callable[..., object], give: Callable[[Any], object]) -> None:
    """``save=on_best`` is a function, but not of a moment: it would save at every batch, or fail at the first."""
    with pytest.raises(ConfigurationError, match=rf"expected {maker.__name__}\(...\), found {maker.__name__}"):
        give(maker)


@pytest.mark.parametrize("bad", [0, -1, True, 1.5, NAN, "x", [], (), keep_all, int], ids=stable)
def test_keep_takes_rules(bad: Any) -> None:
    """An empty list would keep almost nothing, and nobody means that."""
    with pytest.raises(ConfigurationError, match=r"keep=.*expected"):
        resolve_rules(bad, LOSS)


@pytest.mark.parametrize("bad", [0, -1, True, 1.5, NAN, "x", None, [], keep_last], ids=stable)
def test_a_list_of_rules_has_only_rules(bad: Any) -> None:
    """One that is none among good ones is named."""
    refused(lambda bad: resolve_rules([keep_last(1), bad], LOSS), bad)


@pytest.mark.parametrize("bad", [0, -1, True, 1.5, NAN, "", b"", [], (), {"val_loss"}, {"val_loss": "min"}], ids=stable)
def test_monitor_takes_names_and_monitors(bad: Any) -> None:
    """Nothing is read as "no monitor" but None."""
    refused(resolve_monitors, bad)


@pytest.mark.parametrize("bad", [0, True, 1.5, NAN, None, []], ids=stable)
def test_a_list_of_monitors_has_only_names_and_monitors(bad: Any) -> None:
    """One that is none among good ones is named."""
    refused(lambda bad: resolve_monitors(["val_loss", bad]), bad)
