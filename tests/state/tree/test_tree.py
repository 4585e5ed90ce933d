"""The law: whatever can be encoded comes back with the same types and the same bits."""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import datetime
import enum
import json
import math
import struct
import tracemalloc
import types
from collections import Counter, OrderedDict, defaultdict, deque
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ckpt_callbacks import limits
from ckpt_callbacks.errors import CorruptSnapshotError, UnstorableError
from ckpt_callbacks.limits import reckoned
from ckpt_callbacks.state import MAX_DEPTH, decode, encode, from_json, to_json
from ckpt_callbacks.state.tensors.tensor import HostTensor
from ckpt_callbacks.state.tree import check, plan
from tests.ids import stable
from tests.state.trees import bits, through_memory

pytestmark = pytest.mark.filterwarnings("error")


def nan_with_payload(payload: int) -> float:
    """A quiet NaN that carries ``payload``."""
    return struct.unpack(">d", struct.pack(">Q", 0x7FF8000000000000 | payload))[0]


floats = st.floats() | st.integers(0, 2**51 - 1).map(nan_with_payload)
text = st.text(st.characters(), max_size=5)
hashable = st.recursive(
    st.none() | st.booleans() | st.integers() | floats | text | st.binary(max_size=5) | st.fractions() | st.uuids(),
    lambda items: st.lists(items, max_size=3).map(tuple) | st.frozensets(items, max_size=3),
    max_leaves=5,
)
leaves = (
    hashable
    | st.complex_numbers()
    | st.decimals()
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.datetimes(timezones=st.none() | st.timezones() | st.just(datetime.UTC))
    | st.builds(slice, st.none() | st.integers(), st.integers(), st.integers())
    | st.builds(range, st.integers(), st.integers(), st.integers(1))
    | st.binary(max_size=5).map(bytearray)
    | st.sets(hashable, max_size=3)
    | st.lists(floats, max_size=3).map(lambda items: np.array(items, np.float64))
    | st.lists(st.integers(-128, 127), max_size=3).map(lambda items: torch.tensor(items, dtype=torch.int8))
)
trees = st.recursive(
    leaves,
    lambda items: (
        st.lists(items, max_size=3)
        | st.lists(items, max_size=3).map(tuple)
        | st.lists(items, max_size=3).map(deque)
        | st.dictionaries(text, items, max_size=3)
        | st.dictionaries(hashable, items, max_size=3)
        | st.dictionaries(hashable, items, max_size=3).map(OrderedDict)
        | st.dictionaries(text, items, max_size=3).map(lambda items: defaultdict(list, items))
    ),
    max_leaves=12,
)


@given(trees)
def test_a_tree_comes_back_bit_for_bit(tree: Any) -> None:
    """Through JSON text and back: the same types, the same order, the same bits."""
    assert bits(through_memory(tree)) == bits(tree)


@given(trees)
def test_encoding_is_stable(tree: Any) -> None:
    """What was decoded encodes to the very same text: snapshots of an unchanged state are equal files."""
    first = encode(tree)
    again = encode(decode(first.structure, first.tensors))
    assert to_json(again.structure) == to_json(first.structure)
    assert list(again.tensors) == list(first.tensors)


PLAIN = [0, -1, 2**53 - 1, 0.1, 1e300, 5e-324, "text", "ü", None, True, [], {}, {"a": [1.5]}]


@pytest.mark.parametrize("value", PLAIN)
def test_json_says_plain_values_as_they_are(value: Any) -> None:
    """Anyone who can read JSON can read them."""
    assert encode(value).structure == value


def test_negative_zero_keeps_its_sign() -> None:
    """-0.0 is plain JSON, and not 0.0."""
    assert math.copysign(1, through_memory(-0.0)) == -1


UNPLAIN = [2**53, -(2**53), 10**5000, math.inf, math.nan, {"$": 1}, {"$ref": 1}, {1: 2}, "\ud83d\ude00"]


@pytest.mark.parametrize("value", UNPLAIN, ids=range(len(UNPLAIN)))
def test_what_json_would_change_is_tagged(value: Any) -> None:
    """Large integers, non-finite floats, other keys, keys that look like tags, and lone surrogates."""
    assert encode(value).structure["$"] in ("int", "float", "dict", "str")
    assert bits(through_memory(value)) == bits(value)


@pytest.mark.parametrize(
    "value",
    [
        Counter("hello"),
        Counter({1: 2.5, None: -1}),
        deque([1, 2], maxlen=2),
        defaultdict(None, {"a": 1}),
        argparse.Namespace(lr=0.1, layers=(1, 2)),
        types.SimpleNamespace(**{"$": 1}),
        {"a": {1, "1", 1.5, None, (1, 2)}},
    ],
    ids=stable,
)
def test_kinds_of_containers(value: Any) -> None:
    """Every container of the fixed list keeps its type, its order and what else it knows."""
    assert bits(through_memory(value)) == bits(value)


def test_a_state_dict_keeps_its_versions() -> None:
    """A module's ``state_dict()`` carries version numbers in an attribute; loading needs them."""
    state = torch.nn.BatchNorm1d(2).state_dict()
    restored = through_memory(state)
    assert restored._metadata == state._metadata == {"": {"version": 2}}
    assert bits(restored) == bits(state)


def test_sets_are_stored_in_one_order() -> None:
    """The order in a set depends on the process (string hashes); the order in a file must not."""
    assert encode({"b", "a", "c"}).structure == {"$": "set", "items": ["a", "b", "c"]}


# Types that only a live object can lend -------------------------------------------------------------------------------


class Point(NamedTuple):
    """A namedtuple of the user's."""

    x: int
    y: Any


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """A dataclass of the user's."""

    rate: float
    inner: Any = None
    derived: int = dataclasses.field(init=False, default=7)


class Colour(enum.Enum):
    """An enum of the user's."""

    RED = "red"
    BLUE = "blue"


class Access(enum.Flag):
    """A flag of the user's, whose members combine."""

    READ = 1
    WRITE = 2


LENT = [
    Point(1, [Colour.RED]),
    Settings(0.5, Point(2, None)),
    Colour.BLUE,
    Access.READ | Access.WRITE,
    {Colour.RED: 1, "b": Settings(1.0)},
    argparse.Namespace(colour=Colour.RED),
]


@pytest.mark.parametrize("value", LENT, ids=stable)
def test_a_live_object_lends_its_type(value: Any) -> None:
    """With the live object at hand namedtuples, dataclasses and enums come back as what they were, silently."""
    flattened: list[str] = []
    restored = through_memory(value, like=value, on_flattened=lambda path, kind: flattened.append(path))
    assert restored == value
    assert bits(restored) == bits(value)
    assert flattened == []


def test_without_a_live_object_plain_data_stands_in() -> None:
    """The file names no type to import: the parts come back, and the caller is told where."""
    flattened: list[tuple[str, str]] = []
    value = {"p": Point(1, 2), "s": [Settings(0.5)], "c": Colour.RED}
    restored = through_memory(value, like={"p": None}, on_flattened=lambda *found: flattened.append(found))
    assert restored == {"p": (1, 2), "s": [{"rate": 0.5, "inner": None, "derived": 7}], "c": "red"}
    assert flattened == [("s.0", "dataclass Settings"), ("c", "enum Colour")]


def test_without_a_live_object_a_namedtuple_has_its_fields() -> None:
    """A replay buffer's items are read by name; the class is another one, of the same name."""
    first, second = through_memory([Point(1, 2), Point(3, 4)])
    assert (type(first).__name__, first.x, second.y) == ("Point", 1, 4)
    assert type(first) is type(second) is not Point


def test_a_namedtuple_whose_fields_are_no_names_is_a_tuple() -> None:
    """What no class can be made of comes back plain, and the caller is told."""
    flattened: list[tuple[str, str]] = []
    node = {"$": "namedtuple", "type": "Odd", "fields": {"a b": 1}}
    assert decode(node, {}, on_flattened=lambda *found: flattened.append(found)) == (1,)
    assert flattened == [("(root)", "namedtuple Odd")]


def test_a_live_object_of_another_shape_lends_nothing() -> None:
    """A namedtuple with other fields is another type."""
    other = collections.namedtuple("Point", "x z")
    assert type(through_memory(Point(1, 2), like=other(1, 2))) not in (other, Point)


# What is refused ------------------------------------------------------------------------------------------------------


class Odd:
    """A class nobody knows."""


class OddDict(dict):  # type: ignore[type-arg]
    """A dict that may be more than a dict."""


def test_all_offending_leaves_are_named_at_once() -> None:
    """One error with every path, so that one edit mends them all."""
    tree = {"a": [1, Odd()], "b": {"c": lambda: 0}, "d": OddDict(x=1), 3: object, "e": defaultdict(lambda: 0)}
    with pytest.raises(UnstorableError) as caught:
        encode(tree)
    assert list(caught.value.paths) == ["a.1", "b.c", "d", "3", "e"]
    assert "Odd" in caught.value.paths["a.1"]
    assert "lambda" in caught.value.paths["b.c"]
    assert "a subclass of dict" in caught.value.paths["d"]


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({torch.ones(1): 1}, "tensor in a key"),
        ({torch.ones(1)}, "tensor in a set"),
        (np.array([object()]), "numpy dtype object"),
        (np.zeros(1, [("a", "f4")]), "numpy dtype"),
        (np.ma.array([1.0]), "kind of numpy array"),
        (np.longdouble(1), "another platform"),
        (np.zeros(2, np.clongdouble), "another platform"),
        (torch.eye(2).to_sparse(), "without plain elements"),
        (torch.empty(1, device="meta"), "on meta"),
        (torch.nn.Linear(1, 1), "Linear"),
        (memoryview(b""), "memoryview"),
        (iter([]), "list_iterator"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_refused_says_why(value: Any, why: str) -> None:
    """Nothing is flattened in silence."""
    with pytest.raises(UnstorableError, match=why):
        encode({"leaf": value})


def test_a_dataclass_with_more_than_its_fields_is_refused() -> None:
    """An attribute that no field declares would be lost."""
    kind = dataclasses.make_dataclass("Loose", ["a"])
    value = kind(1)
    value.extra = 2
    with pytest.raises(UnstorableError, match="extra"):
        encode(value)


def test_a_cycle_is_refused_with_both_ends() -> None:
    """A list that holds itself has no end."""
    tree: dict[str, Any] = {"a": {"b": []}}
    tree["a"]["b"].append(tree["a"])
    with pytest.raises(UnstorableError, match=r"a\.b\.0: a cycle: it is the same dict as a"):
        encode(tree)


def test_the_same_list_twice_is_no_cycle() -> None:
    """Siblings may be the same object; they come back equal."""
    shared = [1]
    assert through_memory([shared, shared]) == [[1], [1]]


def test_a_hook_replaces_what_cannot_be_stored() -> None:
    """Each offending leaf is offered with its path; what the hook returns is stored in its place."""
    seen: list[str] = []

    def hook(path: str, value: object, reason: str) -> object:
        seen.append(path)
        return {"repr": type(value).__name__, "tensor": torch.ones(1)}

    encoded = encode({"a": Odd(), "b": [2, Odd()]}, on_unstorable=hook)
    assert seen == ["a", "b.1"]
    assert decode(encoded.structure, encoded.tensors)["b"][1]["repr"] == "Odd"
    assert list(encoded.tensors) == ["a.tensor", "b.1.tensor"]


def test_a_replacement_must_be_storable_itself() -> None:
    """The hook is asked once; it can't go round in circles."""
    with pytest.raises(UnstorableError, match=r"a\.0: .*Odd"):
        encode({"a": Odd()}, on_unstorable=lambda path, value, reason: [value])


def test_a_hook_may_raise() -> None:
    """Its error is the caller's."""

    def hook(path: str, value: object, reason: str) -> object:
        raise LookupError(path)

    with pytest.raises(LookupError, match="a"):
        encode({"a": Odd()}, on_unstorable=hook)


def test_tensors_within_a_refused_container_are_not_stored() -> None:
    """When a hook replaces a container, what it held goes with it; elsewhere the same tensor is stored."""
    tensor = torch.ones(2)
    encoded = encode({"a": {1: tensor, (tensor,): 2}, "b": tensor}, on_unstorable=lambda path, value, reason: "gone")
    assert list(encoded.tensors) == ["a.1"]
    assert bits(decode(encoded.structure, encoded.tensors)["b"]) == bits(tensor)


# Depth and malformed structures ---------------------------------------------------------------------------------------


def nested(depth: int) -> Any:
    """Tuples within dicts within tuples, ``depth`` of them."""
    tree: Any = ()
    for level in range(depth - 1):
        tree = {level: tree} if level % 2 else (tree,)
    return tree


def test_depth_is_bounded() -> None:
    """As deep as allowed works; one deeper is a clear error, both ways."""
    assert through_memory(nested(MAX_DEPTH)) == nested(MAX_DEPTH)
    with pytest.raises(UnstorableError, match="nested deeper"):
        encode(nested(MAX_DEPTH + 1))
    structure = encode(nested(MAX_DEPTH)).structure
    with pytest.raises(CorruptSnapshotError, match="nested deeper"):
        decode([structure], {})


def test_json_of_any_depth_is_a_clean_error() -> None:
    """Not a RecursionError."""
    with pytest.raises(CorruptSnapshotError, match=r"state\.json"):
        from_json(b"[" * 10**6, "state.json")
    with pytest.raises(CorruptSnapshotError):
        from_json(b"NaN")


def test_a_text_that_would_eat_memory_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three bytes make a list of eighty. What it would take is reckoned before, and never too low."""
    for text in (b"[],", b"{},", b'{"a":{"b":0}},', b"1000,", b"1.5,", b'"ab",', b'{"$":"tuple","items":[]},'):
        whole = b"[" + text * 100_000 + b"0]"
        tracemalloc.start()
        from_json(whole)
        _, taken = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert 0.9 * taken < reckoned(whole) < 5 * taken
    monkeypatch.setattr(limits, "PARSED", 1000)
    with pytest.raises(CorruptSnapshotError, match=r"at x can't be read: state.json would take some 1,\d{3} bytes"):
        from_json(b"[" + b"[]," * 10 + b"0]", "at x")
    assert from_json(b"[" + b"[]," * 4 + b"0]") == [[], [], [], [], 0]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda items: st.lists(items, max_size=3) | st.dictionaries(st.text(max_size=3) | st.just("$"), items, max_size=3),
    max_leaves=5,
)


@given(trees.map(lambda tree: encode([tree, torch.ones(2), np.ones(3)[::2]])), st.data())
def test_a_damaged_structure_is_a_clean_error(encoded: Any, data: st.DataObject) -> None:
    """Whatever one node is changed to: a value comes back, or CorruptSnapshotError; nothing else. What a check finds
    wrong can't be decoded."""
    structure = json.loads(to_json(encoded.structure))
    spots: list[tuple[Any, Any]] = []

    def collect(node: Any) -> None:
        for key, child in node.items() if type(node) is dict else enumerate(node):
            spots.append((node, key))
            if type(child) in (dict, list):
                collect(child)

    collect(structure)
    node, key = data.draw(st.sampled_from(spots))
    node[key] = data.draw(json_values)
    wrong = ""
    with contextlib.suppress(CorruptSnapshotError):
        check(structure, encoded.tensors)
        wrong = "nothing"
    try:
        decode(structure, encoded.tensors)
        assert wrong == "nothing"
    except CorruptSnapshotError as error:
        assert "can't be read at" in str(error)  # noqa: PT017 (either outcome is right)


def test_a_check_makes_no_tensor_and_asks_no_codec() -> None:
    """It is for whoever looks only: the bytes may be many, and a codec is the user's code."""
    encoded = encode({"a": torch.ones(2), "b": (np.ones((3, 4)).T, {1, 2})})
    checked = check(encoded.structure, encoded.tensors)
    assert type(checked["a"]) is type(checked["b"][0]) is object
    assert checked["b"][1] == {1, 2}
    coded = {"$": "codec", "name": "nobody's", "value": encoded.structure}
    check([coded], encoded.tensors)
    with pytest.raises(CorruptSnapshotError, match="is not in the file"):
        check([coded], {})


@pytest.mark.parametrize(
    "change",
    [
        {"ref": "other"},
        {"lib": "os"},
        {"dtype": "float64"},
        {"dtype": "O"},
        {"dtype": "f4,f4"},
        {"shape": [3]},
        {"shape": [-2]},
        {"shape": "2"},
        {"view": {"offset": 4, "strides": [4]}},
        {"view": {"offset": 0, "strides": [-4]}},
        {"view": {"offset": 0, "strides": [2**70]}},
        {"view": {"offset": 1, "strides": [1]}},
        {"order": [1]},
    ],
    ids=stable,
)
def test_a_tensor_that_differs_from_its_description(change: dict[str, Any]) -> None:
    """The file can't make the reader look at memory that isn't the tensor's."""
    encoded = encode({"a": torch.ones(2)})
    encoded.structure["a"].update(change)
    with pytest.raises(CorruptSnapshotError, match="at a:"):
        decode(encoded.structure, encoded.tensors)


BOMBS = [
    ((1 << 30,), (0,), "float32"),
    ((1 << 20, 1 << 20), (0, 4), "uint8"),  # windows that overlap
    ((1 << 40, 1 << 40), (0, 0), "float64"),
]


@pytest.mark.parametrize(("shape", "strides", "dtype"), BOMBS, ids=stable)
def test_a_view_is_never_much_larger_than_what_is_stored(shape: Any, strides: Any, dtype: str) -> None:
    """A few bytes in a file can't ask for gigabytes of memory."""
    node = {"$": "tensor", "lib": "torch", "dtype": dtype, "shape": list(shape), "ref": "a"}
    block = HostTensor("U8", (1 << 23,), np.zeros(1 << 23, np.uint8))
    with pytest.raises(CorruptSnapshotError, match=r"at 0: .* bytes of elements"):
        decode([node | {"view": {"offset": 0, "strides": list(strides)}}], {"a": block})


def test_many_views_together_are_not_much_larger_either() -> None:
    """Each is just small enough; a reader takes two of them, and so does whoever saves."""
    sizes = [[99 << 20, 1], [1, 99 << 20], [99 << 20]]
    views = [{"offset": 0, "strides": [0] * len(size)} for size in sizes]
    common = {"$": "tensor", "lib": "torch", "dtype": "uint8", "ref": "a"}
    nodes = [common | {"shape": size, "view": view} for size, view in zip(sizes, views, strict=True)]
    block = {"a": HostTensor("U8", (4,), np.zeros(4, np.uint8))}
    assert [tuple(one.shape) for one in decode(nodes[:2], block)] == [(99 << 20, 1), (1, 99 << 20)]
    with pytest.raises(CorruptSnapshotError, match="at 2: "):
        decode(nodes, block)
    tensor = torch.zeros(4, dtype=torch.uint8)
    with pytest.raises(UnstorableError, match="2: an expanded Tensor") as caught:
        plan([tensor[:1].expand(*size) for size in sizes])
    assert list(caught.value.paths) == ["2"]


@pytest.mark.parametrize("library", [torch, np], ids=["torch", "numpy"])
def test_what_no_reader_would_take_is_refused_with_the_reason(library: Any) -> None:
    """Also beside the tensor that it is a view of; what is expanded a little is stored as ever."""
    small = library.arange(6.0)
    with pytest.raises(UnstorableError, match="bytes of elements lie in"):
        plan({"a": small, "b": library.broadcast_to(small, (1 << 28, 6))})
    back = through_memory({"a": small, "b": library.broadcast_to(small, (1000, 6))})
    assert tuple(back["b"].shape) == (1000, 6)
    assert back["b"][999].tolist() == small.tolist()


def test_a_kind_from_the_future_says_so() -> None:
    """An unknown tag is most likely a newer version's."""
    with pytest.raises(CorruptSnapshotError, match="newer version"):
        decode({"a": {"$": "quaternion"}}, {})
