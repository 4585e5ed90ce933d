"""The metric that says which snapshot is best."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ckpt_callbacks.errors import ConfigurationError

__all__ = ["Monitor", "expression", "find", "is_loss", "is_of_validation", "named", "numbers", "resolve", "to_float"]

_LARGEST = math.nextafter(math.inf, 0)

# Words in a metric's name that tell its direction. A name with words of both kinds tells nothing.
_LESS_IS_BETTER = """
    loss losses error err errors mse rmse mae mape msle rmsle nll bce ce crossentropy hinge perplexity ppl divergence
    kld kl wer cer fid distance deviance regret bpc bpd eer epe brier
"""
_MORE_IS_BETTER = """
    acc accuracy auc auroc auprc roc prc f1 fbeta precision recall sensitivity specificity iou miou jaccard dice map
    ndcg mrr bleu rouge meteor cider r2 psnr ssim score reward return mcc kappa top1 top5 hits success
"""
# They turn the words after them around: neg_mean_squared_error.
_NEGATIONS = frozenset({"neg", "negative", "minus"})


@dataclass(frozen=True)
class Monitor:
    """A metric and its direction.

    Args:
        metric: its name, as the framework logs it.
        mode: ``"min"``, ``"max"``, or ``"auto"``: by the words in the name (``val_loss`` -> min, ``Val/Acc`` -> max).
        min_delta: by how much a value must beat the best one to count, in the metric's unit.
        relative: take ``min_delta`` as a fraction of the best value instead.

    Raises:
        ConfigurationError: the name can't tell the direction, or an argument can't work.
    """

    metric: str
    mode: str = "auto"
    min_delta: float = 0.0
    relative: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.metric, str) or not self.metric:
            raise ConfigurationError(f"monitor={self.metric!r}: expected the name of a metric, such as 'val_loss'.")
        if self.mode not in ("auto", "min", "max"):
            raise ConfigurationError(f"mode={self.mode!r} is not known: expected 'min', 'max' or 'auto'.")
        delta = self.min_delta
        if isinstance(delta, bool) or not isinstance(delta, (int, float)) or not 0 <= delta <= _LARGEST:
            raise ConfigurationError(f"min_delta={delta!r}: expected a finite number that is not negative.")
        if not isinstance(self.relative, bool):
            raise ConfigurationError(f"relative={self.relative!r}: expected True or False; the fraction is min_delta.")
        if self.mode == "auto":
            object.__setattr__(self, "mode", _direction(self.metric))

    @property
    def key(self) -> str:
        """A name for what this monitor remembers: the metric, the direction, and ``min_delta`` unless it is 0.

        Monitors that count different values as improvements remember different best ones.
        """
        delta = f":{float(self.min_delta)}{' of best' if self.relative else ''}" if self.min_delta else ""
        return f"{self.metric}:{self.mode}{delta}"

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Monitor:
        """The inverse of `as_dict`; members that are no arguments are left alone."""
        known = ("metric", "mode", "min_delta", "relative")
        return cls(**{name: plain[name] for name in known if name in plain})

    def as_dict(self) -> dict[str, Any]:
        """The arguments by name, for JSON; ``mode`` is never ``"auto"`` here."""
        return {"metric": self.metric, "mode": self.mode, "min_delta": self.min_delta, "relative": self.relative}

    def value(self, metrics: Mapping[str, Any]) -> float | None:
        """The metric's value, or None if it was not measured."""
        return to_float(metrics[self.metric], self.metric) if self.metric in metrics else None

    def better(self, value: float, other: float) -> bool:
        """Whether ``value`` is strictly better than ``other``, by however little. NaN is never better."""
        return value < other if self.mode == "min" else value > other

    def improves(self, value: float, best: float | None) -> bool:
        """Whether ``value`` beats ``best`` (None: nothing yet) by more than ``min_delta``; NaN and ±inf never do."""
        if not math.isfinite(value):
            return False
        if best is None:
            return True
        delta = self.min_delta * abs(best) if self.relative else self.min_delta
        return self.better(value, best - delta if self.mode == "min" else best + delta)

    def __repr__(self) -> str:
        delta = f", min_delta={self.min_delta!r}" if self.min_delta else ""
        return f"Monitor({self.metric!r}, {self.mode!r}{delta}{', relative=True' if self.relative else ''})"


def named(where: str, given: str | Monitor | None) -> str | Monitor | None:
    """What a trigger or rule was given as its monitor, if it can be one; which one is found out by `find`."""
    if given is not None and not isinstance(given, Monitor) and (not isinstance(given, str) or not given):
        raise ConfigurationError(f"{where}: expected the name of a metric or a Monitor, found {given!r}.")
    return given


def expression(given: str | Monitor | None) -> str:
    """The shortest argument that means this monitor: the name alone, where that says it all; nothing for None."""
    if given is None or isinstance(given, str):
        return repr(given) if given else ""
    try:
        plain = Monitor(given.metric) == given
    except ConfigurationError:
        plain = False
    return repr(given.metric if plain else given)


def find(given: str | Monitor | None, monitors: Sequence[Monitor]) -> Monitor | None:
    """The monitor that a trigger or rule means: the first of ``monitors`` for None, the one of that name, or its own.

    A name that none of ``monitors`` has tells its direction by itself; None stays None if there are no monitors.

    Raises:
        ConfigurationError: it is nothing of the kind, or a name that can't tell the direction.
    """
    if given is None:
        return monitors[0] if monitors else None
    if isinstance(given, Monitor):
        return given
    return next((monitor for monitor in monitors if monitor.metric == given), None) or Monitor(given)


def resolve(
    monitor: str | Monitor | Sequence[str | Monitor] | None, mode: str = "auto", min_delta: float = 0.0
) -> tuple[Monitor, ...]:
    """What the user gave as ``monitor=``, ``mode=`` and ``min_delta=``, as monitors; the first one leads.

    Raises:
        ConfigurationError: ``monitor`` is something else, or an empty list; ``mode`` or ``min_delta`` is beside a
            `Monitor`, which has its own, or without any monitor.
    """
    given = _listed(monitor)
    extra = mode != "auto" or min_delta != 0.0
    if extra and not given:
        raise ConfigurationError("mode= and min_delta= say how to compare a metric: pass monitor= with them.")
    if extra and any(isinstance(one, Monitor) for one in given):
        raise ConfigurationError("a Monitor has a mode and min_delta of its own: pass them to it, not beside it.")
    return tuple(one if isinstance(one, Monitor) else Monitor(one, mode, min_delta) for one in given)


def _listed(monitor: str | Monitor | Sequence[str | Monitor] | None) -> Sequence[str | Monitor]:
    if monitor is None:
        return ()
    if isinstance(monitor, (str, Monitor)):
        return (monitor,)
    if isinstance(monitor, Sequence) and monitor:
        return monitor
    raise ConfigurationError(
        f"monitor={monitor!r}: expected the name of a metric, such as 'val_loss', a Monitor, a list of them, or None."
    )


def to_float(value: Any, name: str = "the metric") -> float:
    """A number as a float: from Python, numpy, or a tensor of one element (of whatever library, on whatever device).

    Raises:
        ConfigurationError: it is no single number.
    """
    if type(value) is float:  # nearly all of them
        return value
    try:
        number = value.item() if hasattr(value, "item") else value
        if isinstance(number, (str, bytes)):  # float("1e3") would accept what was never a number
            raise TypeError(f"it is text: {number!r}")
        return float(number)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ConfigurationError(
            f"{name} is a {type(value).__name__} that is no single number ({error}). "
            "Log a scalar under this name, or monitor another metric."
        ) from error


def is_loss(metric: str) -> bool:
    """Whether a metric's name says that it is a loss: ``loss``, ``val_loss``, ``train/loss_epoch``, ``valLoss``."""
    return "loss" in _words(metric)


def is_of_validation(metric: str) -> bool:
    """Whether a metric's name says that a validation measures it: ``val_acc``, ``Val/Loss``, ``validation-f1``."""
    return not _words(metric).isdisjoint(("val", "valid", "validation"))


def _direction(metric: str) -> str:
    words = _words(metric)
    less, more = words.intersection(_LESS_IS_BETTER.split()), words.intersection(_MORE_IS_BETTER.split())
    telling = [min(some) for some in (words & _NEGATIONS, less, more) if some]
    if len(telling) != 1 or words & _NEGATIONS:
        why = f"speaks both of {telling[0]!r} and {telling[1]!r}" if len(telling) > 1 else "has no word that tells"
        raise ConfigurationError(
            f"monitor={metric!r}: less or more, which is better? The name {why}. Pass mode='min' or mode='max'."
        )
    return "min" if less else "max"


def _words(metric: str) -> set[str]:
    """All words that may be meant, in lower case: of ``valLoss``, ``mIoU``, ``mean_io_u``, ``cross_entropy``, ``acc1``.

    Words end at signs and at capitals; they count whole as well, two of them joined, and without trailing digits.
    """
    parts = re.findall(r"[^\W_]+", metric)
    humps = re.findall(r"[A-Z]+(?![a-z])\d*|[A-Z]?[a-z]+\d*", metric)
    words = {word.lower() for word in (*parts, *humps, *map("".join, (*pairwise(parts), *pairwise(humps))))}
    return words | {word.rstrip("0123456789") for word in words}


def numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The metrics that are single numbers, as floats."""
    found = {}
    for name, value in metrics.items():
        with contextlib.suppress(ConfigurationError):
            found[name] = to_float(value, name)
    return found
