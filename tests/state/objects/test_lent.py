"""Classes of values in containers come from the modules of live objects, and from nowhere else."""

from __future__ import annotations

import enum
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from typing import Any

import pytest

from ckpt_callbacks.state import decode, encode
from ckpt_callbacks.state.objects.lent import Lenders, with_members_named

Pair = namedtuple("Pair", "one two")


class Phase(enum.Enum):
    WARM, COLD = 1, 2


class Access(enum.Flag):
    READ, WRITE = 1, 2


class Owner:
    """A user's object; its class lends as well."""

    class Inner(enum.Enum):
        ONLY = "only"


VALUES = {
    "a member": Phase.COLD,
    "in lists and tuples": [(Phase.WARM, [Phase.COLD]), 1],
    "keys and elements": {Phase.WARM: {Phase.COLD}, "x": frozenset([Phase.WARM])},
    "other containers": [
        *(OrderedDict(a=Phase.WARM), defaultdict(list, a=[Phase.COLD]), Counter({Phase.WARM: 2})),
        deque([Phase.WARM], maxlen=1),
    ],
    "flags": [Access.READ | Access.WRITE, Access.READ],
    "named tuples": deque([Pair(1, Pair(Phase.WARM, None))], maxlen=3),
    "of a class": [Owner.Inner.ONLY],
}


def through_a_file(value: Any) -> Any:
    encoded = encode(with_members_named(value)[0])
    return decode(encoded.structure, encoded.tensors)


def types_in(value: Any) -> Any:
    inner = value.items() if isinstance(value, dict) else value if isinstance(value, list | tuple | deque | set) else ()
    return type(value), getattr(value, "maxlen", None), [types_in(item) for item in inner]


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_what_the_module_of_an_object_lends(value):
    """The value is what it was, with all its types."""
    lent = Lenders([Owner()]).typed(through_a_file(value))
    assert lent == value
    assert types_in(lent) == types_in(value)


def test_without_a_lender_members_are_plain():
    """And named tuples have their fields."""
    member, pair = Lenders([]).typed(through_a_file([Phase.COLD, Pair(1, 2)]))
    assert (member, pair.two, type(pair) is Pair) == (2, 2, False)


def test_nothing_is_copied_that_holds_no_members():
    """A large buffer of numbers stays the object that it is."""
    value = [1, {"a": (2,)}, deque([3])]
    assert with_members_named(value) == (value, {})
    assert with_members_named(value)[0] is value
