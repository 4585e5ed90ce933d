"""Which weights of a snapshot go where in a model: filter, rename, match. Knows names and shapes, no framework."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from ckpt_callbacks.errors import ResumeError

__all__ = ["LoadReport", "Names", "Rename", "match"]

Names = str | Iterable[str] | Callable[[str], bool] | None
Rename = Mapping[str, str] | Callable[[str], str] | None


@dataclass(frozen=True)
class LoadReport:
    """What a loading of weights did.

    Attributes:
        loaded: names in the model that got the snapshot's values.
        missing: names in the model for which the snapshot has nothing.
        unexpected: names in the snapshot for which the model has no place.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]


def match(
    weights: Mapping[str, Any],
    targets: Mapping[str, tuple[int, ...]],
    *,
    strict: bool,
    include: Names,
    exclude: Names,
    rename: Rename,
) -> tuple[dict[str, Any], LoadReport]:
    """Pair a snapshot's weights with a model's places.

    Args:
        weights: name -> tensor with a ``shape``.
        targets: the model's names -> shapes.
        strict: every selected weight must have a place, and every place a weight (unless ``include`` or ``exclude``
            say otherwise).
        include, exclude: names to take or leave: glob patterns, or a function of the name. Default: take all.
        rename: prefix -> other prefix, or a function from the snapshot's name to the model's.

    Raises:
        ResumeError: listing what doesn't fit; a shape that differs never fits.
    """
    chosen = {
        _renamed(name, rename): tensor
        for name, tensor in weights.items()
        if _selected(name, include, default=True) and not _selected(name, exclude, default=False)
    }
    fitting = {name: tensor for name, tensor in chosen.items() if name in targets}
    report = LoadReport(
        loaded=tuple(fitting),
        missing=tuple(name for name in targets if name not in chosen),
        unexpected=tuple(name for name in chosen if name not in targets),
    )
    problems = [
        f"{name}: {list(tensor.shape)} in the snapshot, {list(targets[name])} in the model"
        for name, tensor in fitting.items()
        if tuple(tensor.shape) != tuple(targets[name])
    ]
    if strict:
        problems += [f"{name}: in the snapshot only" for name in report.unexpected]
        if include is None and exclude is None:
            problems += [f"{name}: in the model only" for name in report.missing]
    if strict and not chosen:
        problems.append(f"nothing of the snapshot's {len(weights)} weights is selected")
    if problems:
        raise ResumeError(
            "the weights do not fit the model:\n  " + "\n  ".join(problems[:30]) + "\n"
            "Use include=, exclude= or rename= to say what goes where, or strict=False to load what matches by name."
        )
    return fitting, report


def _selected(name: str, names: Names, *, default: bool) -> bool:
    if names is None:
        return default
    if callable(names):
        return bool(names(name))
    patterns = [names] if isinstance(names, str) else names
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _renamed(name: str, rename: Rename) -> str:
    if rename is None:
        return name
    if callable(rename):
        return rename(name)
    for old, new in rename.items():
        if name.startswith(old):
            return new + name[len(old) :]
    return name
