"""Triggers and rules from text: ``"every_steps(100) | on_best('val_loss')"``, ``"keep_last(2), keep_best(1)"``.

Text that comes from a command line or a file must not run as a program. So it is parsed, and understood only where it
calls the functions of the vocabulary with plain values.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from ckpt_callbacks.engine import rules, triggers
from ckpt_callbacks.engine.monitor import Monitor
from ckpt_callbacks.engine.retention import Rule
from ckpt_callbacks.engine.triggers import Trigger
from ckpt_callbacks.errors import ConfigurationError

__all__ = ["parse_recorded_trigger", "parse_rules", "parse_trigger"]

MAX_LENGTH = 10_000
MAX_DEPTH = 50
"""How deep calls, brackets and signs may stand within each other; each ``|`` is one level more."""

_TRIGGERS: Mapping[str, Callable[..., Any]] = {
    name: getattr(triggers, name)
    for name in (
        "every",
        "every_batches",
        "every_epochs",
        "every_steps",
        "on_best",
        "on_end",
        "on_exception",
        "on_signal",
    )
}
_RULES: Mapping[str, Callable[..., Any]] = {
    name: getattr(rules, name)
    for name in (
        *("keep_all", "keep_best", "keep_every_steps", "keep_last", "keep_log_spaced", "keep_tiers", "keep_within"),
        "weights_after",
    )
}


_OF_FUNCTIONS = ("when", "keep_when")


@dataclass(frozen=True, slots=True)
class _Recorded(Trigger):
    """A function of the user's, of which only the name is known here."""

    name: str

    @property
    def words(self) -> str:
        return f"when {self.name} is true, which only the run's program can tell"

    def __repr__(self) -> str:
        return f"when({self.name})"


def parse_trigger(text: str) -> Trigger:
    """One trigger, or several joined by ``|``, ``&`` or commas.

    Raises:
        ConfigurationError: it can't be read, or an argument can't work.
    """
    parts = _parse(text, _TRIGGERS, Trigger, "every_steps(100) | on_best('val_loss')")
    trigger: Trigger = parts[0]
    for part in parts[1:]:
        trigger |= part
    return trigger


def parse_recorded_trigger(text: str) -> Trigger:
    """A trigger as a run has recorded it: of functions of the user's there are only names, so it can't be asked.

    Raises:
        ConfigurationError: as for `parse_trigger`.
    """
    _require_short(text, example := "every_steps(100) | when(late)")
    named = re.sub(r"\bwhen\(([^()'\"]*)\)", lambda found: f"when({found[1]!r})", text)
    (trigger,) = _parse(named, {**_TRIGGERS, "when": _Recorded}, Trigger, example)
    return cast(Trigger, trigger)


def parse_rules(text: str) -> tuple[Rule, ...]:
    """One rule, or several separated by commas.

    Raises:
        ConfigurationError: as for `parse_trigger`.
    """
    return tuple(_parse(text, _RULES, Rule, "keep_last(2), keep_best(1, 'val_loss')"))


def _parse(text: str, vocabulary: Mapping[str, Callable[..., Any]], kind: type, example: str) -> list[Any]:
    _require_short(text, example)
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _unreadable(text, error, example) from None
    if _depth(tree) > MAX_DEPTH:
        raise _unreadable(text, f"it is nested more than {MAX_DEPTH} levels deep", example)
    parts = tree.elts if isinstance(tree, (ast.Tuple, ast.List)) else [tree]
    found = [_value(part, vocabulary, text) for part in parts]
    for one in found:
        if not isinstance(one, kind):
            raise ConfigurationError(f"{text!r} has {one!r}: expected such as {example!r}.")
    if not found:
        raise ConfigurationError(f"{text!r} is empty: expected such as {example!r}.")
    return found


def _require_short(text: str, example: str) -> None:
    if len(text) > MAX_LENGTH:
        raise _unreadable(text, f"it is longer than {MAX_LENGTH} characters", example)


def _unreadable(text: str, why: object, example: str) -> ConfigurationError:
    return ConfigurationError(f"{text[:200]!r} can't be read ({why}): expected such as {example!r}.")


def _depth(tree: ast.AST) -> int:
    """How many levels a tree has. Level by level: what walks down a tree that is too deep must not fall itself."""
    depth, level = 0, [tree]
    while level:
        depth, level = depth + 1, [below for node in level for below in ast.iter_child_nodes(node)]
    return depth


def _value(node: ast.expr, vocabulary: Mapping[str, Callable[..., Any]], text: str) -> Any:
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.BitOr, ast.BitAnd)):
        left, right = _value(node.left, vocabulary, text), _value(node.right, vocabulary, text)
        if isinstance(left, Trigger) and isinstance(right, Trigger):
            return left | right if isinstance(node.op, ast.BitOr) else left & right
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        known = {**vocabulary, "Monitor": Monitor}
        if node.func.id in _OF_FUNCTIONS and node.func.id not in known:
            raise ConfigurationError(
                f"{text!r}: {node.func.id} takes a function of your program's, and text is never run as one: expected "
                f"it to be left out, and some of {', '.join(vocabulary)}."
            )
        if node.func.id not in known:
            raise ConfigurationError(f"{text!r}: {node.func.id} is not known: expected one of {', '.join(vocabulary)}.")
        arguments = [_value(one, known, text) for one in node.args]
        named = {one.arg or "**": _value(one.value, known, text) for one in node.keywords}
        try:
            return known[node.func.id](*arguments, **named)
        except ConfigurationError:
            raise
        except (TypeError, ValueError, OverflowError) as error:
            raise ConfigurationError(f"{ast.unparse(node)}: expected other arguments ({error}).") from None
    else:
        try:
            return ast.literal_eval(node)
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            pass
    raise ConfigurationError(f"{text!r}: {ast.unparse(node)} can't stand here: expected calls with plain values.")
