"""FORMAT.md is true: a reader and a writer made from that page alone understand what the package writes and reads.

`Reader` uses json, struct, xxhash and numpy only. The package is imported to make runs, and where its own tables are
compared with those of the page.
"""

from __future__ import annotations

import argparse
import array
import base64
import collections
import datetime
import decimal
import enum
import fractions
import json
import math
import pathlib
import re
import shutil
import struct
import sys
import types
import uuid
import zoneinfo
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import xxhash

import ckpt_callbacks
from ckpt_callbacks.checkpointer import BaseCheckpointer
from ckpt_callbacks.engine import Event, Progress, keep_last, weights_after
from ckpt_callbacks.saving.overlap import Overlap
from ckpt_callbacks.state.captured import Captured
from ckpt_callbacks.store import Trace, fingerprint

PAGE = (Path(__file__).parent.parent / "FORMAT.md").read_text(encoding="utf-8")
ID = re.compile(r"[A-Za-z0-9_@+=-][A-Za-z0-9_@+=.-]{0,199}")


# A reader made from the page ------------------------------------------------------------------------------------------


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object without two members of one name."""
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def strict(text: bytes) -> Any:
    """JSON as RFC 8259 has it."""
    return json.loads(text.decode(), object_pairs_hook=once, parse_constant=lambda word: pytest.fail(word))


def digest(data: bytes) -> str:
    return "xxh3-128:" + xxhash.xxh3_128(data, seed=0).digest().hex()


def number(value: Any) -> float:
    return {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}[value] if isinstance(value, str) else float(value)


def read_manifest(path: Path) -> dict[str, Any]:
    """Check a manifest by the page's rules and give its members."""
    raw = path.read_bytes()
    assert raw.isascii()
    assert len(raw) <= 16 << 20
    document = strict(raw)
    assert document["format"] == 1
    assert list(document)[-1] == "digest"
    covered = raw[: raw.rindex(b'\n  "digest": "') + 1]
    assert document["digest"] == digest(covered)
    assert raw == covered + f'  "digest": "{document["digest"]}"\n}}\n'.encode()
    return document


def snapshots(run: Path) -> list[tuple[Path, dict[str, Any]]]:
    """The snapshots of a run, oldest first."""
    if (run / "run.json").exists():
        assert strict((run / "run.json").read_bytes())["format"] == 1
    found = []
    for path in (run / "snapshots").iterdir():
        if not path.name.startswith(".") and (path / "manifest.json").exists():
            assert ID.fullmatch(path.name)
            found.append((path, read_manifest(path / "manifest.json")))
            assert found[-1][1]["id"] == path.name
    return sorted(found, key=lambda one: (one[1]["sequence"], one[1]["id"]))


class Stored(NamedTuple):
    dtype: str
    shape: list[int]
    data: bytearray


def read_safetensors(raw: bytes) -> tuple[dict[str, Stored], dict[str, str]]:
    (length,) = struct.unpack("<Q", raw[:8])
    header = strict(raw[8 : 8 + length])
    data = raw[8 + length :]
    metadata = header.pop("__metadata__", {})
    return {
        name: Stored(one["dtype"], one["shape"], bytearray(data[slice(*one["data_offsets"])]))
        for name, one in header.items()
    }, metadata


class Flat(NamedTuple):
    """A value of a type of the user's, by its parts, or of a library that the reader doesn't use."""

    tag: str
    what: Any
    parts: Any = None


SIZES = [(sign, bits) for sign in ("", "u") for bits in (8, 16, 32, 64)]
NATIVE = {
    "bool": "BOOL",
    **{f"{sign}int{bits}": f"{sign or 'i'}{bits}".upper() for sign, bits in SIZES},
    **{"float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64", "complex64": "C64"},  # noqa: PIE800
}


class Reader:
    """One tree of a ``state.json``, whose tensors lie in one safetensors file."""

    def __init__(self, tensors: dict[str, Stored]) -> None:
        self.tensors = tensors
        self.made: dict[str, Any] = {}

    def node(self, node: Any) -> Any:
        if isinstance(node, list):
            return self.nodes(node)
        if not isinstance(node, dict):
            return node
        if "$" not in node:
            return {key: self.node(value) for key, value in node.items()}
        if node["$"] == "tensor":
            key = json.dumps(node, sort_keys=True)
            if key not in self.made:
                self.made[key] = self.tensor(node)
            return self.made[key]
        return getattr(self, "read_" + node["$"].replace(".", "_"))(node)

    def nodes(self, nodes: list[Any]) -> list[Any]:
        return [self.node(one) for one in nodes]

    def pairs(self, node: Any) -> list[tuple[Any, Any]]:
        return [(self.node(key), self.node(value)) for key, value in node["items"]]

    def text(self, field: Any) -> str:
        return self.read_str(field) if isinstance(field, dict) else field

    @staticmethod
    def integer(field: Any) -> int:
        return int(field, 16) if isinstance(field, str) else field

    # Plain values.

    def read_int(self, node: Any) -> int:
        return int(node["hex"], 16)

    def read_float(self, node: Any) -> float:
        return struct.unpack(">d", bytes.fromhex(node["hex"]))[0]

    def read_complex(self, node: Any) -> complex:
        return complex(*struct.unpack(">dd", bytes.fromhex(node["hex"])))

    def read_str(self, node: Any) -> str:
        return base64.b64decode(node["base64"]).decode("utf-8", "surrogatepass")

    def read_bytes(self, node: Any) -> bytes:
        return base64.b64decode(node["base64"])

    def read_bytearray(self, node: Any) -> bytearray:
        return bytearray(base64.b64decode(node["base64"]))

    def read_array(self, node: Any) -> array.array:
        return array.array(node["typecode"], np.frombuffer(base64.b64decode(node["base64"]), node["dtype"]).tolist())

    def read_range(self, node: Any) -> range:
        return range(*map(self.integer, node["items"]))

    def read_decimal(self, node: Any) -> decimal.Decimal:
        return decimal.Decimal(node["text"])

    def read_fraction(self, node: Any) -> fractions.Fraction:
        return fractions.Fraction(*map(self.integer, node["items"]))

    def read_uuid(self, node: Any) -> uuid.UUID:
        return uuid.UUID(node["hex"])

    def read_date(self, node: Any) -> datetime.date:
        return datetime.date.fromisoformat(node["iso"])

    def read_datetime(self, node: Any, kind: Any = datetime.datetime) -> Any:
        return kind.fromisoformat(node["iso"]).replace(fold=node["fold"], tzinfo=self.node(node["zone"]))

    def read_time(self, node: Any) -> datetime.time:
        return self.read_datetime(node, datetime.time)

    def read_timedelta(self, node: Any) -> datetime.timedelta:
        return datetime.timedelta(*map(self.integer, node["items"]))

    def read_timezone(self, node: Any) -> datetime.timezone:
        name = [self.text(node["name"])] if "name" in node else []
        return datetime.timezone(self.read_timedelta({"items": node["offset"]}), *name)

    def read_zoneinfo(self, node: Any) -> zoneinfo.ZoneInfo:
        return zoneinfo.ZoneInfo(node["key"])

    def read_path(self, node: Any) -> pathlib.Path:
        return pathlib.Path(self.text(node["text"]))

    def read_purepath(self, node: Any) -> pathlib.PurePath:
        kind = pathlib.PureWindowsPath if node.get("windows") else pathlib.PurePosixPath
        return kind(self.text(node["text"]))

    # Containers.

    def read_tuple(self, node: Any) -> tuple[Any, ...]:
        return tuple(self.nodes(node["items"]))

    def read_dict(self, node: Any) -> dict[Any, Any]:
        return dict(self.pairs(node))

    def read_OrderedDict(self, node: Any) -> Flat:  # noqa: N802
        attributes = {key: self.node(value) for key, value in node.get("attributes", {}).items()}
        return Flat("OrderedDict", self.pairs(node), attributes)

    def read_defaultdict(self, node: Any) -> Flat:
        return Flat("defaultdict", node["factory"], self.pairs(node))

    def read_Counter(self, node: Any) -> collections.Counter[Any]:  # noqa: N802
        return collections.Counter(dict(self.pairs(node)))

    def read_set(self, node: Any) -> set[Any]:
        return set(self.nodes(node["items"]))

    def read_frozenset(self, node: Any) -> frozenset[Any]:
        return frozenset(self.nodes(node["items"]))

    def read_deque(self, node: Any) -> collections.deque[Any]:
        return collections.deque(self.nodes(node["items"]), node["maxlen"])

    def read_slice(self, node: Any) -> slice:
        return slice(*self.nodes(node["items"]))

    def read_Namespace(self, node: Any) -> argparse.Namespace:  # noqa: N802
        return argparse.Namespace(**self.node(node["fields"]))

    def read_SimpleNamespace(self, node: Any) -> types.SimpleNamespace:  # noqa: N802
        return types.SimpleNamespace(**self.node(node["fields"]))

    # Types that no file brings.

    def read_enum(self, node: Any) -> Flat:
        return Flat("enum", (node["type"], node["name"]), self.node(node["value"]))

    def read_namedtuple(self, node: Any) -> Flat:
        return Flat("namedtuple", node["type"], {key: self.node(value) for key, value in node["fields"].items()})

    def read_dataclass(self, node: Any) -> Flat:
        return Flat("dataclass", node["type"], {key: self.node(value) for key, value in node["fields"].items()})

    def read_codec(self, node: Any) -> Flat:
        return Flat("codec", node["name"], self.node(node["value"]))

    # Libraries.

    def read_numpy_scalar(self, node: Any) -> Any:
        return np.frombuffer(bytes.fromhex(node["hex"]), node["dtype"])[0]

    def read_numpy_str(self, node: Any) -> np.str_:
        return np.str_(self.text(node["text"]))

    def read_numpy_bytes(self, node: Any) -> np.bytes_:
        return np.bytes_(base64.b64decode(node["base64"]))

    def read_numpy_dtype(self, node: Any) -> np.dtype[Any]:
        return np.dtype(node["name"])

    def read_torch_dtype(self, node: Any) -> Flat:
        return Flat(node["$"], node["name"])

    read_torch_device = read_torch_dtype

    def read_torch_Size(self, node: Any) -> Flat:  # noqa: N802
        return Flat("torch.Size", node["items"])

    # Tensors, as numpy has them: bfloat16 by its bits.

    def tensor(self, node: Any) -> Any:
        name, shape, block = node["dtype"], node["shape"], self.tensors[node["ref"]]
        dtype = np.dtype("uint16" if name == "bfloat16" else name)
        if "view" in node:
            view = node["view"]
            low = view["offset"] + sum(min(0, (n - 1) * s) for n, s in zip(shape, view["strides"], strict=True))
            high = view["offset"] + sum(max(0, (n - 1) * s) for n, s in zip(shape, view["strides"], strict=True))
            assert 0 not in shape
            assert low >= 0
            assert high + dtype.itemsize <= len(block.data)
            return np.ndarray(shape, dtype, block.data, view["offset"], view["strides"])
        if name in NATIVE:
            assert (block.dtype, block.shape) == (NATIVE[name], shape)
        elif name.startswith(("datetime64", "timedelta64")):
            assert (block.dtype, block.shape) == ("I64", shape)
        elif name.startswith(">") and name[1] != "U":
            dtype = dtype.newbyteorder("<")
            assert (block.dtype, block.shape) == (NATIVE[dtype.name], shape)
        else:
            assert (block.dtype, block.shape) == ("U8", [*shape, dtype.itemsize])
        array = np.ndarray(shape, dtype, block.data)
        if "order" in node:  # the same elements, laid out as they were
            array = np.ascontiguousarray(array.transpose(node["order"])).transpose(np.argsort(node["order"]))
        return array


class Read(NamedTuple):
    manifest: dict[str, Any]
    weights: dict[str, Any]
    rest: Any
    missing: dict[str, str] | None
    model: dict[str, Stored]
    aliases: dict[str, str]
    structure: dict[str, Any]


def read_snapshot(path: Path, manifest: dict[str, Any]) -> Read:
    """A verified snapshot: every file has its size and digest."""
    files = {name: (path / name).read_bytes() for name in manifest["files"]}
    for name, promised in manifest["files"].items():
        assert (promised["size"], promised["digest"]) == (len(files[name]), digest(files[name]))
    structure = strict(files["state.json"])
    model, aliases = read_shards("model", files)
    if "model.safetensors.index.json" in files:
        index = strict(files["model.safetensors.index.json"])["weight_map"]
        assert index == {key: name for name in index.values() for key in read_safetensors(files[name])[0]}
    weights = Reader(model).node(structure["weights"])
    rest = missing = None
    if manifest["content"] == "full":
        rest, missing = Reader(read_shards("state", files)[0]).node(structure["rest"]), structure["missing"]
    return Read(manifest, weights, rest, missing, model, aliases, structure)


def read_shards(stem: str, files: dict[str, bytes]) -> tuple[dict[str, Stored], dict[str, str]]:
    """The tensors and aliases of all files of that name."""
    tensors: dict[str, Stored] = {}
    aliases: dict[str, str] = {}
    names = [name for name in files if re.fullmatch(stem + r"(-[0-9]{5}-of-[0-9]{5})?\.safetensors", name)]
    assert names == [f"{stem}.safetensors"] or len(names) == int(names[0][-17:-12])
    for name in names:
        found, metadata = read_safetensors(files[name])
        assert not found.keys() & tensors.keys()
        tensors |= found
        aliases |= json.loads(metadata.get("aliases", "{}"))
    return tensors, aliases


# The page's tables ----------------------------------------------------------------------------------------------------


def table(first: str) -> list[list[str]]:
    """The rows of the table of the page whose head begins with ``first``."""
    lines = PAGE.splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith(f"| {first} |"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return rows


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


# Runs to read ---------------------------------------------------------------------------------------------------------


def make_run(directory: Path, weights: Any, rest: Any, **options: Any) -> Path:
    """A run of one snapshot."""
    checkpointer = BaseCheckpointer(directory, **options)
    checkpointer.begin({"adapter": "0"})
    metrics = {"loss": 0.25, "worst": math.inf, "lost": math.nan}
    checkpointer.boundary(Progress(7, 1, 2, 9), Event.FIT_END, metrics, lambda: Captured(weights, rest, ("hparams",)))
    checkpointer.end()
    return directory


def read_run(directory: Path, weights: Any, rest: Any, **options: Any) -> Read:
    """What the independent reader makes of it."""
    ((path, manifest),) = snapshots(make_run(directory, weights, rest, **options))
    return read_snapshot(path, manifest)


class Colour(enum.Enum):
    RED = 1


class Point(NamedTuple):
    x: int
    y: int


class Mine:
    """A type with a codec."""


@pytest.fixture
def codec() -> Iterator[None]:
    ckpt_callbacks.register_codec(Mine, "mine", lambda _: [1, 2], lambda _: Mine())
    yield
    from ckpt_callbacks.state.tree.codecs import unregister_codec

    unregister_codec("mine")


def everything() -> dict[str, Any]:
    """A value of every kind that the page lists: tag -> value, and what the reader should make of it."""
    ordered = collections.OrderedDict([(2, "two"), ("a", "b")])
    ordered._metadata = {"version": 1}  # type: ignore[attr-defined]
    point = datetime.datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=zoneinfo.ZoneInfo("Europe/Paris"))
    zone = datetime.timezone(datetime.timedelta(hours=-1, seconds=2), "here")
    spaces = {"path": pathlib.Path("a/b"), "purepath": pathlib.PureWindowsPath(r"c:\a")}
    same = {
        "int": -(2**70),
        "complex": complex(-0.0, math.inf),
        "str": "lone \ud800",
        "bytes": b"\x00\xff",
        "bytearray": bytearray(b"ab"),
        "array": array.array("d", [0.1, math.inf]),
        "tuple": (1, 1.0, -0.0, True, None, "x", [1.5, 2**53 - 1], 1e300, 0.1),
        "dict": {0: "zero", (1, 2): {"$": 3}, None: {}, "n": math.pi},
        "Counter": collections.Counter("aab"),
        "set": {1, "a", (2,)},
        "frozenset": frozenset({b"x"}),
        "deque": collections.deque([1, 2], 3),
        "slice": slice(None, 2**60, -1),
        "range": range(0, 2**60, 7),
        "decimal": decimal.Decimal("-1.50"),
        "fraction": fractions.Fraction(2**60, 7),
        "uuid": uuid.UUID(int=5),
        "date": datetime.date(2024, 2, 29),
        "datetime": point,
        "time": datetime.time(1, 2, 3, 4, tzinfo=zone),
        "timedelta": datetime.timedelta(-1, 5, 6),
        "timezone": zone,
        "zoneinfo": zoneinfo.ZoneInfo("Europe/Paris"),
        **spaces,
        "Namespace": argparse.Namespace(lr=0.5),
        "SimpleNamespace": types.SimpleNamespace(a=(1,)),
        "numpy.scalar": np.float32(0.1),
        "numpy.str": np.str_("ä"),
        "numpy.bytes": np.bytes_(b"ab"),
        "numpy.dtype": np.dtype("datetime64[3s]"),
    }
    flat = {
        "OrderedDict": (ordered, Flat("OrderedDict", [(2, "two"), ("a", "b")], {"_metadata": {"version": 1}})),
        "defaultdict": (collections.defaultdict(list, {1: [2]}), Flat("defaultdict", "list", [(1, [2])])),
        "enum": (Colour.RED, Flat("enum", ("Colour", "RED"), 1)),
        "namedtuple": (Point(1, 2), Flat("namedtuple", "Point", {"x": 1, "y": 2})),
        "dataclass": (Progress(1, 2, 3, 4), Flat("dataclass", "Progress", Progress(1, 2, 3, 4).as_dict())),
        "codec": (Mine(), Flat("codec", "mine", [1, 2])),
        "torch.dtype": (torch.bfloat16, Flat("torch.dtype", "bfloat16")),
        "torch.device": (torch.device("cuda:0"), Flat("torch.device", "cuda:0")),
        "torch.Size": (torch.Size([2, 3]), Flat("torch.Size", [2, 3])),
    }
    return {**{tag: (value, value) for tag, value in same.items()}, **flat}


def shown(value: Any) -> str:
    """A value with the types of all its parts; a set has no order."""
    return repr(sorted(map(repr, value)) if isinstance(value, set | frozenset) else value)


def tags_in(node: Any) -> set[str]:
    inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    own = {node["$"]} if isinstance(node, dict) and isinstance(node.get("$"), str) else set()
    return own.union(*map(tags_in, inner))


# Tests ----------------------------------------------------------------------------------------------------------------


def test_values_come_back_through_an_independent_reader(tmp_path, codec):
    """A reader made from the page gets every kind of value back, with its type and its order."""
    values = everything()
    nan = struct.unpack(">d", bytes.fromhex("fff8000000000123"))[0]
    read = read_run(tmp_path, {}, {"nan": nan, "$": "no tag", **{tag: value for tag, (value, _) in values.items()}})
    assert struct.pack(">d", read.rest.pop("nan")).hex() == "fff8000000000123"
    assert read.rest.pop("$") == "no tag"
    assert list(read.rest) == list(values)
    for tag, (_, expected) in values.items():
        assert type(read.rest[tag]) is type(expected), tag
        assert shown(read.rest[tag]) == shown(expected), tag
        assert read.rest[tag] == expected, tag
    assert set(read.missing) == {"dataclass", "enum"}
    assert tags_in(read.structure) >= {*values, "float"}


def test_tensors_come_back_through_an_independent_reader(tmp_path):
    """Every element, layout and sharing of tensors can be had back from the files by the page alone."""
    tied = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    half = torch.tensor([1.5, -2.25, math.nan]).to(torch.bfloat16)
    base = torch.arange(12, dtype=torch.float64)
    array = np.arange(6, dtype=np.int16)
    last = torch.arange(120, dtype=torch.int32).reshape(2, 3, 4, 5).to(memory_format=torch.channels_last)
    rest = {
        "complex": np.array([[1 + 2j, complex(0, math.inf)]], np.complex128),
        "views": (base[2:10:3], base[:4].reshape(2, 2), base),
        "again": base,
        "back": [array[::-1], array[1:5]],
        "other": torch.arange(4, dtype=torch.int8),
        "order": {"last": last, "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3))},
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(True),
        "big": np.array([1.5, 2.5], ">f4"),
        "text": np.array(["ä", "xyz"]),
        "when": np.array(["2024-02-29", "NaT"], "M8[D]"),
        "grad": torch.ones(2, requires_grad=True),
    }
    read = read_run(tmp_path, {"embed": tied, "half": half, "head": tied, "state": {"amax": half[:1]}}, rest)

    assert list(read.weights) == ["embed", "half", "head", "state"]
    assert read.aliases == {"head": "embed"}
    assert set(read.model) == {"embed", "half", "state.amax"}
    assert read.weights["head"] is read.weights["embed"]
    np.testing.assert_array_equal(read.weights["embed"], tied.numpy())
    assert read.model["half"].dtype == "BF16"
    assert read.weights["half"].tobytes() == half.view(torch.int16).numpy().tobytes()
    assert read.weights["state"]["amax"].tobytes() == half[:1].view(torch.int16).numpy().tobytes()

    got = read.rest
    assert list(got) == list(rest)
    for path in ("complex", "big", "text", "when"):
        assert got[path].tobytes() == rest[path].astype(got[path].dtype).tobytes()
        assert got[path].shape == rest[path].shape
    assert read.structure["rest"]["big"]["dtype"] == ">f4"
    for path in ("other", "empty", "scalar"):
        np.testing.assert_array_equal(got[path], rest[path].numpy(), strict=True)
    assert got["grad"].tolist() == [1, 1]
    assert read.structure["rest"]["grad"]["requires_grad"] is True
    np.testing.assert_array_equal(got["order"]["last"], last.numpy())
    assert got["order"]["last"].strides == last.numpy().strides
    assert got["order"]["fortran"].flags.f_contiguous

    for view, live in zip(got["views"], rest["views"], strict=True):
        np.testing.assert_array_equal(view, live.numpy(), strict=True)
        assert view.strides == live.numpy().strides
    np.testing.assert_array_equal(got["back"][0], array[::-1], strict=True)
    assert got["again"] is got["views"][2]
    got["again"][2] = 99
    assert (got["views"][0][0], got["views"][1][1, 0]) == (99, 99)
    got["back"][0][1] = 77
    assert got["back"][1][3] == 77


def test_what_can_not_be_stored_is_named(tmp_path):
    """A value that can't be stored is null in the tree and named in ``missing``; an optional one is its repr."""
    read = read_run(tmp_path, {}, {"hook": [print], "hparams": {"fn": len}})
    assert read.rest == {"hook": [None], "hparams": {"fn": repr(len)}}
    assert list(read.missing or {}) == ["hook.0"]


def test_weights_only(tmp_path):
    """A snapshot of weights has no state.safetensors, and only ``weights`` in its tree."""
    read = read_run(tmp_path, {"w": np.ones(2)}, {"step": 1}, content="weights")
    assert set(read.manifest["files"]) == {"model.safetensors", "state.json"}
    assert list(read.structure) == ["weights"]
    np.testing.assert_array_equal(read.weights["w"], [1, 1])


def test_a_frozen_part_has_a_file_of_its_own(tmp_path):
    """Which the next snapshot has, too: it is the same file."""
    checkpointer = BaseCheckpointer(tmp_path, keep=keep_last(2))
    checkpointer.begin({"adapter": "0"})
    body = np.random.default_rng(0).random(200_000)
    for step in (1, 2):
        weights = {"body": body, "head": np.full(3, step), "tied": body}
        captured = Captured(weights, {"step": step}, frozen={"body"})
        checkpointer.boundary(Progress(step), Event.FIT_END, {}, lambda captured=captured: captured)
    checkpointer.end()
    (one, first), (two, second) = snapshots(tmp_path)
    for step, read in enumerate((read_snapshot(one, first), read_snapshot(two, second)), 1):
        assert read.weights["head"].tolist() == [step] * 3
        np.testing.assert_array_equal(read.weights["body"], body)
        assert read.aliases == {"tied": "body"}
    frozen = "model-00002-of-00002.safetensors"
    assert (one / frozen).samefile(two / frozen)
    weights = ckpt_callbacks.Run(tmp_path).latest.weights()
    assert weights.keys() == {"body", "head", "tied"}


def test_the_example(tmp_path):
    """The page's example is what the package writes, byte for byte but for spaces."""
    example = re.search(r"```json\n(.*?)```", PAGE, re.DOTALL)
    assert example
    tied, block = torch.zeros(2, 3), torch.arange(6, dtype=torch.float32)
    rest = {"lr": 0.5, "best": math.inf, "seen": {7: (1, 2)}, "pair": [block, block[::2]]}
    read = read_run(tmp_path, {"embed": tied, "head": tied}, rest)
    expected = json.dumps(strict(example[1].encode()), separators=(",", ":"))
    assert json.dumps(read.structure, separators=(",", ":")) == expected
    (path,) = (tmp_path / "snapshots").iterdir()
    assert (path / "state.json").read_text() == expected


def write_run(directory: Path, **changes: Any) -> Path:
    """A snapshot as another program would write it from the page: a run without run.json, headers without padding."""
    path = directory / "snapshots" / "one+1"
    path.mkdir(parents=True)
    header = json.dumps(
        {
            "embed": {"data_offsets": [0, 8], "shape": [2], "dtype": "F32"},
            "__metadata__": {"aliases": '{"head": "embed"}'},
        }
    ).encode()
    tree = {
        "rest": {"x": {"$": "tuple", "items": [1, {"$": "int", "hex": "0x40000000000000"}], "x-mine": 0}},
        "weights": {
            name: {"$": "tensor", "lib": "torch", "dtype": "float32", "shape": [2], "ref": "embed"}
            for name in ("head", "embed")
        },
        "missing": {},
        "x-mine": 0,
    }
    files = {
        "model.safetensors": struct.pack("<Q", len(header)) + header + struct.pack("<2f", 1, 2),
        "state.safetensors": struct.pack("<Q", 2) + b"{}",
        "state.json": json.dumps(tree, indent=1).encode(),
    }
    for name, data in files.items():
        (path / name).write_bytes(data)
    (path / "x-mine").write_text("a file that no manifest names")
    counts = {"step": 3, "epoch": 0, "batch": 3, "batches": 3}
    manifest = {
        "format": 1,
        "id": "one+1",
        "sequence": 5,
        "progress": {**counts, "x-mine": 0},
        "metrics": {"loss": "nan"},
        "reasons": [],
        "content": "full",
        "created": "2024-02-29T12:00:00+01:00",
        "framework": "none",
        "past": {},
        "files": {name: {"size": len(data), "digest": digest(data)} for name, data in files.items()},
        "x-mine": {"anything": [1]},
        **changes,
    }
    sign(path / "manifest.json", manifest)
    return directory


def sign(path: Path, manifest: dict[str, Any]) -> None:
    """Write a manifest with its digest line."""
    members = (f"  {json.dumps(name)}: {json.dumps(value)},\n" for name, value in manifest.items() if name != "digest")
    covered = ("{\n" + "".join(members)).encode()
    path.write_bytes(covered + f'  "digest": "{digest(covered)}"\n}}\n'.encode())


def test_a_run_of_another_program(tmp_path):
    """What another program writes from the page alone is listed, verified and resumed from."""
    checkpointer = BaseCheckpointer(write_run(tmp_path))
    assert ckpt_callbacks.Run(tmp_path).verify()
    restored = checkpointer.begin({})
    checkpointer.end()
    assert restored is not None
    assert restored.rest == {"x": (1, 2**54)}
    assert list(restored.weights) == ["head", "embed"]
    assert restored.weights["head"] is restored.weights["embed"]
    assert restored.weights["head"].tolist() == [1, 2]
    assert math.isnan(restored.snapshot.metrics["loss"])
    assert restored.snapshot.weights()["head"].tolist() == [1, 2]


def test_a_newer_format_is_refused(tmp_path):
    """A manifest of format 2 is not read, whatever else is in it, and the version that wrote it is named."""
    (why,) = ckpt_callbacks.Run(write_run(tmp_path, format=2, versions={"ckpt_callbacks": "9.9"})).unreadable().values()
    assert "format 2" in why
    assert "9.9" in why


@pytest.fixture
def in_repository(tmp_path, monkeypatch):
    """The running script seems to lie in a repository, so that all of the provenance is known."""
    head = tmp_path / "repository" / ".git"
    (head / "refs" / "heads").mkdir(parents=True)
    (head / "HEAD").write_text("ref: refs/heads/main\n")
    (head / "refs" / "heads" / "main").write_text("ab" * 20 + "\n")
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(head.parent / "train.py"), raising=False)


NESTED = ("progress", "policy", "provenance", "provenance.git", "past", "monitors[]", "files.*")


def members(value: Any, path: str = "") -> set[str]:
    """Names of all members that the page describes one by one, in its notation."""
    found = set()
    for name, inner in value.items():
        here = f"{path}{name}"
        found.add(here)
        if here in NESTED:
            found |= members(inner, here + ".")
        for mark, parts in (("[]", inner), (".*", list(inner.values()) if isinstance(inner, dict) else ())):
            if here + mark in NESTED:
                assert parts
                found |= set().union(*(members(part, here + mark + ".") for part in parts))
    return found


def test_manifest_members(tmp_path, in_repository):
    """The page's table of manifest members lists exactly those that a manifest has, and their types."""
    read = read_run(tmp_path / "run", {"w": np.ones(1)}, {}, monitor="loss")
    rows = {name: row[1] for row in table("member | type | required | meaning") for name in quoted(row[0])}
    assert members(read.manifest) == set(rows)
    kinds: dict[str, Callable[[Any], bool]] = {
        "integer": lambda value: type(value) is int,
        "count": lambda value: type(value) is int and 0 <= value < 2**63,
        "number": lambda value: math.isfinite(number(value)),
        "boolean": lambda value: type(value) is bool,
        "string": lambda value: isinstance(value, str),
        "string or null": lambda value: value is None or isinstance(value, str),
        "object": lambda value: isinstance(value, dict),
        "array of strings": lambda value: isinstance(value, list) and all(isinstance(one, str) for one in value),
        "array of pairs": lambda value: isinstance(value, list) and all(len(one) == 2 for one in value),
        "array of objects": lambda value: isinstance(value, list) and all(isinstance(one, dict) for one in value),
    }
    for name, kind in rows.items():
        value: Any = read.manifest
        for part in re.split(r"\.(?!\*)", name):
            value = value[part.removesuffix("[]").removesuffix(".*")]
            value = value[0] if part.endswith("[]") else next(iter(value.values())) if part.endswith(".*") else value
        assert kinds[kind](value), name
    assert {name: str(number(value)) for name, value in read.manifest["metrics"].items()} == {
        "loss": "0.25",
        "worst": "inf",
        "lost": "nan",
    }
    assert (read.manifest["metrics"]["worst"], read.manifest["metrics"]["lost"]) == ("inf", "nan")
    assert read.manifest["past"]["best"] == {"loss:min": 0.25}


def test_required_members(tmp_path, in_repository):
    """A manifest without a member that the page calls required is refused, and one without any other is read."""
    make_run(tmp_path / "run", {"w": np.ones(1)}, {}, monitor="loss")
    ((path, manifest),) = snapshots(tmp_path / "run")
    rows = {name: row[2] for row in table("member | type | required | meaning") for name in quoted(row[0])}
    for name, required in rows.items():
        changed = json.loads(json.dumps(manifest))
        *parents, last = re.split(r"\.(?!\*)", name)
        inner: Any = changed
        for part in parents:
            inner = inner[part.removesuffix("[]").removesuffix(".*")]
            inner = inner[0] if part.endswith("[]") else inner["state.json"] if part.endswith(".*") else inner
        del inner[last]
        sign(path / "manifest.json", changed)
        if name == "digest":
            (path / "manifest.json").write_text(json.dumps(changed, indent=2))
        assert bool(BaseCheckpointer(tmp_path / "run").snapshots()) == (required != "yes"), name


def test_tags():
    """The page's table of tags lists exactly those that the package reads, and the independent reader knows them."""
    from ckpt_callbacks.state.tree import decoding, leaves

    listed = [tag for row in table("tag | members | meaning") for tag in quoted(row[0])]
    assert sorted(listed) == sorted({*leaves.READERS, *decoding.READERS})
    assert {tag for tag in listed if not hasattr(Reader, "read_" + tag.replace(".", "_"))} == {"tensor"}


def test_element_types():
    """Each element type that the page names is stored as it says."""
    from ckpt_callbacks.state.tensors.elements import BYTES_OF_OTHERS, NATIVE, stored_as

    names, kinds = zip(*((quoted(row[0]), quoted(row[1])) for row in table("`dtype` | stored as")), strict=True)
    for name, kind in zip(spread(names[0]) + spread(names[1]), spread(kinds[0]) + spread(kinds[1]), strict=True):
        assert stored_as(name, [3]) == (kind, (3,)), name
    assert {*spread(names[0]), *spread(names[1])} == set(NATIVE)
    listed = {name for row in names[3:6] for name in spread(row)}
    patterns = {name.removesuffix("*") for name in listed if name.endswith("*")}
    assert {name for name in BYTES_OF_OTHERS if not name.startswith(tuple(patterns))} == {
        name for name in listed if not name.endswith("*")
    }
    for name, (size,) in {
        "complex128": [16],
        "complex32": [4],
        "bits16": [2],
        "int4": [1],
        "<U3": [12],
        "|S3": [3],
    }.items():
        assert stored_as(name, [3]) == ("U8", (3, size)), name
    assert stored_as(">M8[s]", [3]) == stored_as("timedelta64", [3]) == ("I64", (3,))


def spread(names: list[str]) -> list[str]:
    """Names with those between them: "int8", "int64" (joined by "to" on the page) are int8, int16, int32, int64."""
    result: list[str] = []
    for name in names:
        stem, count = re.fullmatch(r"(.*?)(\d*)", name).groups()  # type: ignore[union-attr]
        before = re.fullmatch(r"(.*?)(\d*)", result[-1] if result else "").groups()  # type: ignore[union-attr]
        if stem == before[0] and stem.lower() in ("int", "uint", "i", "u"):
            low, high = int(before[1]), int(count)
            steps = range(low + 1, high) if high < 8 else [n for n in (16, 32) if low < n < high]
            result += [f"{stem}{n}" for n in steps]
        result.append(name)
    return result


def test_events(tmp_path, monkeypatch):
    """The page's table of events lists exactly what the journal holds, with exactly these fields."""
    checkpointer = BaseCheckpointer(tmp_path, keep=[keep_last(2), weights_after(1)])
    checkpointer.begin({})
    monkeypatch.setattr(Overlap, "pays", lambda self: True)
    weights = torch.zeros(9)
    checkpointer.save()
    checkpointer.boundary(
        Progress(), Event.NONE, {}, lambda: Captured({"w": weights}, {}, steady=lambda: {weights.data_ptr(): weights})
    )
    weights += 1
    checkpointer.fence()
    for step in (1, 2, 3, 4):
        checkpointer.boundary(Progress(step, 0, step, step), Event.FIT_END, {}, lambda: Captured({}, {}))
        checkpointer.wait()
        if step == 2:
            run = ckpt_callbacks.Run(tmp_path)
            pinned = run.pin("latest", note="good")
            assert (tmp_path / "pins" / pinned.id).read_text() == "good"
    checkpointer.stepped(3, 3, 0.5, fingerprint(0.5))
    checkpointer.end()
    newest = snapshots(tmp_path)[-1][0]
    (newest / "state.json").write_text("damaged")
    restored = checkpointer.begin({})
    assert restored is not None
    checkpointer.resumed_at(restored)
    checkpointer.stepped(3, 3, 0.5, fingerprint(0.5))
    checkpointer.end()
    run.unpin(pinned.id)
    (snapshots(tmp_path)[-1][0] / "state.json").write_text("damaged")
    run.repair()

    rows = {quoted(row[0])[0]: {"time", "event", *quoted(row[1])} for row in table("event | fields | when")}
    entries = [strict(line) for line in (tmp_path / "events.jsonl").read_bytes().splitlines()]
    assert {entry["event"]: set(entry) for entry in entries} == rows


def test_trace(tmp_path):
    """The trace is laid out as the page says."""
    trace = Trace(tmp_path / "trace.bin")
    trace.open()
    trace.record(32_770, 7, 0.5, 99)
    trace.close()
    data = (tmp_path / "trace.bin").read_bytes()
    assert (data[:8], struct.unpack_from("<II", data, 8)) == (b"ckpttrac", (2, 32_768))
    *values, check = struct.unpack_from("<QdQIHH", data, 32 * (1 + 2))
    assert values == [32_770, 0.5, 99, 7, 1]
    register = 0xFFFF
    for byte in data[96:126]:
        register ^= byte << 8
        for _ in range(8):
            register = (register << 1 ^ (0x1021 if register & 0x8000 else 0)) & 0xFFFF
    assert check == register


def test_what_lies_in_a_run(tmp_path):
    """A run holds what the page's first table lists and nothing else; links are relative and can be done without."""
    make_run(tmp_path, {"w": np.ones(1)}, {}, monitor="loss")
    ckpt_callbacks.Run(tmp_path).pin("latest")
    ((path, manifest),) = snapshots(tmp_path)
    listed = {name for row in table("path | what it is") for name in quoted(row[0])}
    names = {str(one.relative_to(tmp_path)).replace(path.name, "<id>") for one in tmp_path.rglob("*")}
    files = {name for name in names if not (tmp_path / name.replace("<id>", path.name)).is_dir()}
    assert files - {"best", "latest"} <= listed
    shards = {"snapshots/<id>/model-00001-of-00002.safetensors", "model.safetensors.index.json"}
    assert listed - names - {"snapshots/<id>/"} == {
        *("snapshots/.<id>.partial/", ".<name>.partial", "requests/<name>.request", "requests/<name>.answer"),
        *("damaged/<id>/", ".resuming", ".deadly", ".restoring", ".deadly-weights"),
        *shards,
    }
    assert {str((tmp_path / name).readlink()) for name in ("best", "latest")} == {f"snapshots/{path.name}"}
    assert set(manifest["files"]) == {"model.safetensors", "state.safetensors", "state.json"}
    facts = strict((tmp_path / "run.json").read_bytes())
    assert list(facts) == ["format", "run_id", "created", "digest"]
    assert re.fullmatch("[0-9a-f]{32}", facts["run_id"])

    for name in ("best", "latest", "events.jsonl", "run.json", ".lock"):
        (tmp_path / name).unlink()
    shutil.rmtree(tmp_path / "pins")
    checkpointer = BaseCheckpointer(tmp_path, monitor="loss")
    assert checkpointer.best is not None
    assert checkpointer.latest is not None
    assert checkpointer.best.id == checkpointer.latest.id == path.name
