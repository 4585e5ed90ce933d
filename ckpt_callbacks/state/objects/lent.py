"""Classes that only live objects can lend: a file never brings a type of the user's, but may name one.

Members of enumerations and named tuples may lie in containers that only training fills, where no live value of their
class is. Their class is looked for in the modules that the classes of the live objects come from: these are imported
already, and nothing else ever is.
"""

from __future__ import annotations

import enum
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ckpt_callbacks.state.objects.kinds import is_frameworks
from ckpt_callbacks.state.objects.parts import replaced
from ckpt_callbacks.state.tree.codecs import register_codec
from ckpt_callbacks.state.tree.decoding import is_lookalike, member_of

__all__ = ["Lenders", "Member", "with_members_named"]


@dataclass(frozen=True, slots=True)
class Member:
    """What is stored for a member of an enumeration."""

    type: str
    name: str | None
    value: Any


register_codec(
    Member,
    "ckpt_callbacks.Member",
    lambda member: {"type": member.type, "name": member.name, "value": member.value},
    lambda fields: Member(fields["type"], fields["name"], fields["value"]),
)


def with_members_named(value: Any) -> tuple[Any, Counter[type[enum.Enum]]]:
    """A value with each member of an enumeration as a `Member`, and how many there are of each."""
    found: Counter[type[enum.Enum]] = Counter()

    def named(part: Any) -> Any:
        if not isinstance(part, enum.Enum):
            return part
        found[type(part)] += 1
        return Member(type(part).__name__, part._name_, part._value_)

    return replaced(value, named), found


class Lenders:
    """The enumerations and named tuples in the classes of some objects, and in the modules that these come from."""

    def __init__(self, objects: Iterable[Any]) -> None:
        kinds = {
            kind for one in objects for kind in type(one).__mro__ if kind is not object and not is_frameworks(kind)
        }
        modules = [module for name in {kind.__module__ for kind in kinds} if (module := sys.modules.get(name))]
        self._classes: dict[str, set[Any]] = {}
        for one in [value for place in (*kinds, *modules) for value in list(vars(place).values())]:
            if isinstance(one, type) and issubclass(one, enum.Enum | tuple):
                self._classes.setdefault(one.__name__, set()).add(one)

    def enumeration(self, name: str) -> Any:
        """The one enumeration of a name, None if there is none or more."""
        return self._only(name, lambda kind: issubclass(kind, enum.Enum))

    def typed(self, value: Any) -> Any:
        """A value with its enumerations' members and named tuples of the classes that they had, where these are."""
        return replaced(value, self._typed)

    def _typed(self, part: Any) -> Any:
        if type(part) is Member:
            kind = self.enumeration(part.type)
            member = None if kind is None else member_of(kind, part.name, part.value)
            return part.value if member is None else member
        return tuple.__new__(self._named_tuple(type(part)), part) if is_lookalike(type(part)) else part

    def _named_tuple(self, like: Any) -> Any:
        return self._only(like.__name__, lambda kind: getattr(kind, "_fields", None) == like._fields) or like

    def _only(self, name: str, fits: Callable[[Any], bool]) -> Any:
        found = [kind for kind in self._classes.get(name, ()) if fits(kind)]
        return found[0] if len(found) == 1 else None
