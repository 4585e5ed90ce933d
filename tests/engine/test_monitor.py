"""Which of two values is better, and how a metric's name tells."""

from __future__ import annotations

import contextlib
import copy
import math
import pickle
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ckpt_callbacks import ConfigurationError, Monitor
from ckpt_callbacks.engine import resolve_monitors, to_float
from ckpt_callbacks.engine.monitor import expression, is_loss, is_of_validation
from tests.engine.strategies import monitors, values
from tests.ids import stable

NEVER = [math.nan, math.inf, -math.inf]
finite = st.floats(allow_nan=False, allow_infinity=False)


# The direction ------------------------------------------------------------------------------------------------------

LESS = """
    loss val_loss train/loss valLoss TrainLoss loss/val/0 val_loss_epoch loss1 perplexity val_ppl mean_squared_error
    RMSE val-MAE bce_loss cross_entropy val_crossentropy sparse_categorical_crossentropy WER eval.wer kl_divergence
"""
MORE = """
    Val-Accuracy val_acc acc1 acc@5 top5_acc sparse_top_k_categorical_accuracy f1 F1Score f1_macro val/f1 AUC AUC-ROC
    mIoU MeanIoU IoU val_mIoU mean_io_u one_hot_mean_io_u mAP mAP50 mAP@0.5 dice R2 score NDCG@10 recall precision bleu4
    reward
"""


@pytest.mark.parametrize("name", LESS.split())
def test_less_of_a_loss_is_better(name: str) -> None:
    """Losses, errors and the like, in whatever spelling."""
    assert Monitor(name).mode == "min"


@pytest.mark.parametrize("name", MORE.split())
def test_more_of_a_score_is_better(name: str) -> None:
    """Accuracies, scores and the like, in whatever spelling."""
    assert Monitor(name).mode == "max"


@pytest.mark.parametrize(
    "name", ["foo", "lr", "grad_norm", "glossary", "val", "maximum", "train/time", "損失", "1", "_"]
)
def test_a_name_that_tells_nothing_is_refused(name: str) -> None:
    """Guessing would keep the worst; a word inside another word tells nothing."""
    with pytest.raises(ConfigurationError, match=rf"monitor='{name}'.*no word that tells.*mode='min' or mode='max'"):
        Monitor(name)


@pytest.mark.parametrize(
    "name", ["loss_acc", "f1_loss", "error_score", "AccuracyLoss", "brier_score", "neg_mean_squared_error"]
)
def test_a_name_that_tells_both_is_refused(name: str) -> None:
    """The words that contradict each other are named."""
    with pytest.raises(ConfigurationError, match=r"speaks both of '\w+' and '\w+'. Pass mode="):
        Monitor(name)


@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_mode_wins_over_the_name(mode: str) -> None:
    """Whoever says the mode needs no name that tells it."""
    assert Monitor("foo", mode).mode == Monitor("loss_acc", mode).mode == Monitor("val_loss", mode).mode == mode


@given(st.text(max_size=12))
def test_any_name_is_told_or_refused(name: str) -> None:
    """Whatever it is, nothing but a direction or a sentence comes of it."""
    with contextlib.suppress(ConfigurationError):
        assert Monitor(name).mode in ("min", "max")


# Better -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", NEVER)
@given(monitor=monitors, best=st.none() | finite)
def test_nan_and_infinity_never_improve(value: float, monitor: Monitor, best: float | None) -> None:
    """A run that diverged is never the best one, not even as the first value."""
    assert not monitor.improves(value, best)


@given(monitors, finite)
def test_any_finite_value_improves_on_nothing(monitor: Monitor, value: float) -> None:
    """The first one counts, whatever ``min_delta`` is."""
    assert monitor.improves(value, None)


def test_zero_is_a_value() -> None:
    """A loss of exactly 0.0 is the best there can be, and a best of 0.0 is not "nothing yet"."""
    assert Monitor("val_loss").improves(0.0, 1.0)
    assert not Monitor("val_loss").improves(1.0, 0.0)
    assert Monitor("val_acc").improves(1.0, 0.0)


@given(monitors, finite)
def test_ties_lose(monitor: Monitor, value: float) -> None:
    """Of equal values the earlier is best."""
    assert not monitor.improves(value, value)


@given(monitors, finite, finite)
def test_of_two_values_at_most_one_improves_on_the_other(monitor: Monitor, one: float, other: float) -> None:
    """Improvement is a strict order; without a ``min_delta``, different values are always ordered."""
    assert not (monitor.improves(one, other) and monitor.improves(other, one))
    if not monitor.min_delta:
        assert (monitor.improves(one, other) or monitor.improves(other, one)) == (one != other)


@given(finite, finite, st.booleans(), st.sampled_from([0.0, 0.1]))
def test_max_is_min_in_the_mirror(value: float, best: float, relative: bool, delta: float) -> None:
    """What is better in one direction is worse, turned over, in the other; ``min_delta`` counts the same."""
    less, more = (Monitor("x", mode, min_delta=delta, relative=relative) for mode in ("min", "max"))
    assert less.improves(value, best) == more.improves(-value, -best)


@pytest.mark.parametrize(
    ("mode", "relative", "best", "enough", "too_little"),
    [
        ("min", False, 1.0, 0.74, 0.75),
        ("min", False, -1.0, -1.26, -1.25),
        ("max", False, 1.0, 1.26, 1.25),
        ("max", False, -1.0, -0.74, -0.75),
        ("min", True, 4.0, 2.9, 3.0),
        ("min", True, -4.0, -5.1, -5.0),
        ("max", True, 4.0, 5.1, 5.0),
        ("max", True, -4.0, -2.9, -3.0),
        ("min", True, 0.0, -1e-9, 0.0),
    ],
)
def test_min_delta(mode: str, relative: bool, best: float, enough: float, too_little: float) -> None:
    """A value counts if it beats the best by more than 0.25 - or than a quarter of the best one's magnitude."""
    monitor = Monitor("x", mode, min_delta=0.25, relative=relative)
    assert monitor.improves(enough, best)
    assert not monitor.improves(too_little, best)


# Values -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        *(0.5, Fraction(1, 2), Decimal("0.5")),
        *(np.float64(0.5), np.float32(0.5), np.float16(0.5), np.array(0.5), np.array([[0.5]], np.float32)),
        *(torch.tensor(0.5), torch.tensor([0.5]), torch.tensor(0.5, dtype=torch.bfloat16)),
        *(torch.tensor(0.5, requires_grad=True), torch.nn.Parameter(torch.tensor(0.5))),
    ],
    ids=stable,
)
def test_a_single_number_is_a_value(value: Any) -> None:
    """Of Python, numpy or torch, as a scalar or as an array of one element."""
    measured = Monitor("val_loss").value({"val_loss": value, "other": "text"})
    assert measured == 0.5
    assert type(measured) is float


@pytest.mark.parametrize("one", [1, True, np.int64(1), np.bool_(True), torch.tensor(1), torch.tensor(True)], ids=stable)
def test_whole_numbers_and_truths_are_numbers(one: Any) -> None:
    """A count of mistakes, or whether all went well, may be monitored."""
    assert to_float(one) == 1.0


@pytest.mark.parametrize("value", NEVER)
def test_what_is_not_finite_is_still_a_value(value: float) -> None:
    """Reading judges nothing."""
    assert to_float(torch.tensor(value)) == pytest.approx(value, nan_ok=True)


@pytest.mark.parametrize(
    "value",
    [
        *("0.5", "1e3", b"1", np.str_("1e3"), np.array("1e3"), np.array(b"1e3")),
        *(np.zeros(2), np.zeros((1, 0)), torch.zeros(2), torch.zeros(0), torch.zeros((), device="meta")),
        *(None, [0.5], {"loss": 0.5}, 1j, 10**400, object),
    ],
    ids=stable,
)
def test_what_is_no_single_number_is_refused(value: Any) -> None:
    """With the metric's name, what it is, and what to do."""
    with pytest.raises(ConfigurationError, match=r"val_loss is a \w+ that is no single number.* Log a scalar"):
        Monitor("val_loss").value({"val_loss": value})


def test_a_metric_that_was_not_measured_has_no_value() -> None:
    """None, which is not 0.0."""
    assert Monitor("val_loss").value({}) is None
    assert Monitor("val_loss").value({"val_acc": 1.0}) is None


# As data ------------------------------------------------------------------------------------------------------------


@given(monitors)
def test_a_monitor_is_rebuilt_from_its_dict_and_from_its_repr(monitor: Monitor) -> None:
    """The manifest holds the one; messages and reports show the other."""
    assert Monitor(**monitor.as_dict()) == monitor
    assert eval(repr(monitor)) == monitor
    assert monitor.as_dict()["mode"] in ("min", "max")


@given(monitors)
def test_the_shortest_expression_means_the_same(monitor: Monitor) -> None:
    """The name alone where that says it all; else the whole monitor."""
    given = eval(expression(monitor))
    assert (given if isinstance(given, Monitor) else Monitor(given)) == monitor
    assert expression(Monitor("val_loss")) == "'val_loss'"
    assert expression(Monitor("foo", "min")) == "Monitor('foo', 'min')"


@given(monitors, monitors, values, finite)
def test_monitors_that_share_what_they_remember_agree(one: Monitor, other: Monitor, value: float, best: float) -> None:
    """A best value is remembered by key: whoever reads it under the same key would have chosen it too."""
    if one.key == other.key:
        assert one.improves(value, best) == other.improves(value, best)


def test_keys_are_plain_where_they_can_be() -> None:
    """They are written into every manifest."""
    assert Monitor("val_loss").key == "val_loss:min"
    assert Monitor("val/acc", min_delta=1).key == Monitor("val/acc", min_delta=1.0).key == "val/acc:max:1.0"
    assert Monitor("val_loss", min_delta=0.1, relative=True).key == "val_loss:min:0.1 of best"


def test_a_monitor_is_copied_and_pickled() -> None:
    """Frameworks copy callbacks, and send them to other processes."""
    monitor = Monitor("foo", "max", 0.5)
    assert copy.deepcopy(monitor) == pickle.loads(pickle.dumps(monitor)) == monitor  # noqa: S301
    assert len({monitor, copy.deepcopy(monitor)}) == 1


# monitor=, mode=, min_delta= ----------------------------------------------------------------------------------------


def test_what_the_user_gives_as_monitor() -> None:
    """None, a name, a `Monitor`, or several in order."""
    mine = Monitor("foo", "max")
    assert resolve_monitors(None) == ()
    assert resolve_monitors("val_loss") == (Monitor("val_loss"),)
    assert resolve_monitors("foo", "min", 0.5) == (Monitor("foo", "min", 0.5),)
    assert resolve_monitors(mine) == resolve_monitors([mine]) == (mine,)
    assert resolve_monitors(("val_loss", mine)) == (Monitor("val_loss"), mine)


@pytest.mark.parametrize("how", [{"mode": "min"}, {"min_delta": 0.1}, {"mode": "x"}], ids=str)
def test_how_to_compare_needs_what_to_compare(how: dict[str, Any]) -> None:
    """A mode without a monitor, or beside one that has its own, would be ignored: it is refused."""
    with pytest.raises(ConfigurationError, match="pass monitor= with them"):
        resolve_monitors(None, **how)
    with pytest.raises(ConfigurationError, match="of its own"):
        resolve_monitors(["val_loss", Monitor("val_acc")], **how)


@pytest.mark.parametrize(
    ("metric", "loss", "of_validation"),
    [
        *[("loss", True, False), ("val_loss", True, True), ("train/loss_epoch", True, False), ("valLoss", True, True)],
        *[("loss2", True, False), ("LOSS", True, False), ("Validation/Acc", False, True), ("val_acc", False, True)],
        *[("lossless", False, False), ("gloss", False, False), ("interval", False, False), ("value", False, False)],
    ],
)
def test_what_a_name_says_of_a_metric(metric: str, loss: bool, of_validation: bool) -> None:
    """By whole words, as with the direction."""
    assert (is_loss(metric), is_of_validation(metric)) == (loss, of_validation)
