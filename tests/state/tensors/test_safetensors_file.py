"""Our files are the official format's, and nothing in a damaged file gets past the reader."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ckpt_callbacks.errors import ConfigurationError, CorruptSnapshotError
from ckpt_callbacks.state import HostTensor, Image, Layout, as_numpy, encode, open_file, plan
from tests.state.trees import arrays, filled, image_of, write

pytestmark = pytest.mark.filterwarnings("error")

TENSORS = {
    "f64": torch.arange(3, dtype=torch.float64),
    "f32": torch.arange(6.0).reshape(2, 3),
    "bf16": torch.ones(5, dtype=torch.bfloat16),
    "f16": torch.ones(1, dtype=torch.float16),
    "c64": torch.ones(2, dtype=torch.complex64) * 1j,
    "i64": torch.tensor(2**62),
    "u64": torch.ones(2, dtype=torch.uint64),
    "i32": torch.ones(2, dtype=torch.int32),
    "i16": torch.ones(3, dtype=torch.int16),
    "u16": torch.ones(3, dtype=torch.uint16),
    "i8": torch.ones(3, dtype=torch.int8),
    "u8": torch.ones(3, dtype=torch.uint8),
    "bool": torch.tensor([True, False, True]),
    "e4m3": torch.ones(3).to(torch.float8_e4m3fn),
    "e5m2": torch.ones(3).to(torch.float8_e5m2),
    "e4m3fnuz": torch.ones(3).to(torch.float8_e4m3fnuz),
    "e5m2fnuz": torch.ones(3).to(torch.float8_e5m2fnuz),
    "e8m0": torch.ones(3).to(torch.float8_e8m0fnu),
    "empty": torch.empty(0, 4),
    "ü.name with\nodd 'characters'": torch.ones(2),
}


def test_the_official_reader_reads_our_files(tmp_path: Path) -> None:
    """torch's loader gets the same names, types, shapes and bits, and the metadata."""
    path = write(tmp_path / "f.safetensors", encode(TENSORS).tensors, {"b": "1", "a": "ü"})
    loaded = safetensors.torch.load_file(path)
    assert loaded.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert loaded[name].dtype == tensor.dtype
        assert loaded[name].shape == tensor.shape
        assert encode(loaded[name]).tensors["(root)"].data.tobytes() == encode(tensor).tensors["(root)"].data.tobytes()
    with safetensors.safe_open(path, "pt") as file:
        assert file.metadata() == {"a": "ü", "b": "1"}


def test_the_official_numpy_reader_reads_our_files(tmp_path: Path) -> None:
    """For every type that numpy has."""
    tree = {name: tensor.numpy() for name, tensor in TENSORS.items() if name[0] in "fiub" and name != "bf16"}
    loaded = safetensors.numpy.load_file(write(tmp_path / "f.safetensors", encode(tree).tensors))
    assert {name: array.tobytes() for name, array in loaded.items()} == {n: a.tobytes() for n, a in tree.items()}


def test_we_read_official_files(tmp_path: Path) -> None:
    """The other way round."""
    safetensors.torch.save_file(TENSORS, tmp_path / "f", {"k": "v"})
    file = open_file(tmp_path / "f")
    assert file.metadata == {"k": "v"}
    ours = encode(TENSORS).tensors
    assert {name: (host.dtype, host.shape, host.data.tobytes()) for name, host in file.items()} == {
        name: (host.dtype, host.shape, host.data.tobytes()) for name, host in ours.items()
    }


def test_our_order_is_the_official_one(tmp_path: Path) -> None:
    """The same tensors give the same header up to padding, whatever order they were given in."""
    shuffled = dict(reversed(encode(TENSORS).tensors.items()))
    official = safetensors.torch.save(TENSORS)
    length = int.from_bytes(official[:8], "little")
    ours = filled(image_of(shuffled))
    assert json.loads(ours[8 : 8 + length]) == json.loads(official[8 : 8 + length])
    assert list(json.loads(ours[8 : 8 + length])) == list(json.loads(official[8 : 8 + length]))
    assert ours[-official[8 + length :].__len__() :] == official[8 + length :]


def test_in_a_large_file_what_can_be_aligned_is(tmp_path: Path) -> None:
    """A scalar that the official order has among moments would put all after it where no tensor may stay."""
    tensors = {"a": torch.tensor(1.0), "b": torch.randn(1 << 18), "c": torch.ones(3, dtype=torch.int64)}
    tensors |= {"d": torch.randn(64), "e": torch.zeros(16, dtype=torch.float64), "f": torch.ones(1)}
    layout = image_of(encode(tensors).tensors).layout
    assert list(layout.spans) == ["e", "b", "d", "c", "a", "f"]
    assert [start % 64 for start, _ in layout.spans.values()][:4] == [0, 0, 0, 0]
    found = safetensors.torch.load_file(write(tmp_path / "f", encode(tensors).tensors))
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


def test_packed_types_of_less_than_a_byte(tmp_path: Path) -> None:
    """Four-bit floats of other writers are read as their packed bytes."""
    data = bytes([0x12, 0x34])
    header = b'{"a":{"dtype":"F4","shape":[4],"data_offsets":[0,2]}}'
    (tmp_path / "f").write_bytes(len(header).to_bytes(8, "little") + header + data)
    assert as_numpy(open_file(tmp_path / "f")["a"]).tolist() == [0x12, 0x34]


@pytest.mark.parametrize(("count", "alignment"), [(1, 8), (300_000, 4096)])
def test_data_starts_aligned(count: int, alignment: int, tmp_path: Path) -> None:
    """At 8 bytes; at a page in files of more than 1 MiB, where it pays. The official reader takes both."""
    image = image_of(encode({"a": torch.ones(count)}).tensors)
    header = len(image.layout.header)
    assert header % alignment == 0
    assert image.size == header + 4 * count == len(filled(image))
    assert image.layout.spans == {"a": (header, image.size)}
    path = write(tmp_path / "f", encode({"a": torch.ones(count)}).tensors)
    assert safetensors.torch.load_file(path)["a"].sum() == count


def test_a_layout_needs_no_bytes() -> None:
    """Where everything will lie is known from dtypes and shapes alone, and is where the image puts it."""
    assert Layout.of(plan(TENSORS).sources) == image_of(encode(TENSORS).tensors).layout


def test_an_image_is_filled_with_what_the_tensors_hold_then() -> None:
    """It is laid out before, and nothing is copied on the way into it."""
    array = np.zeros(4)
    sources = plan({"a": array}).sources
    image = Image(Layout.of(sources), sources)
    array[0] = 1
    assert filled(image).endswith(array.tobytes())


def test_no_tensors_at_all(tmp_path: Path) -> None:
    """An empty file is a file."""
    path = write(tmp_path / "f", {})
    assert dict(open_file(path)) == {}
    assert safetensors.torch.load_file(path) == {}
    assert safetensors.torch.save({})[:10] == path.read_bytes()[:10]


def test_an_open_file_survives_its_removal(tmp_path: Path) -> None:
    """Retention may remove a snapshot that somebody still reads."""
    file = open_file(write(tmp_path / "f", encode({"a": torch.ones(3)}).tensors))
    (tmp_path / "f").unlink()
    assert arrays(file)["a"].tolist() == [1, 1, 1]
    assert not file["a"].data.flags.writeable


@pytest.mark.parametrize("name", ["__metadata__", "\ud800"])
def test_names_that_the_format_cannot_hold(name: str) -> None:
    """Refused before anything is written."""
    with pytest.raises(ConfigurationError):
        image_of({name: HostTensor("U8", (0,), np.empty(0, np.uint8))})


def test_a_header_beyond_the_limit_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """What no reader would accept must not be written."""
    monkeypatch.setattr("ckpt_callbacks.state.tensors.safetensors_file.MAX_HEADER", 64)
    with pytest.raises(ConfigurationError, match="header"):
        image_of(encode(TENSORS).tensors)


# Damaged files -------------------------------------------------------------------------------------------------------


def file_of(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """A file with this header, a text or something to write as JSON."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(dtype: Any = "U8", shape: Any = (4,), offsets: Any = (0, 4)) -> dict[str, Any]:
    """A tensor's entry in a header."""
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


DAMAGED = {
    "empty": b"",
    "cut in the length": b"\x08\0\0",
    "header beyond the file": file_of({}, length=3),
    "header of exabytes": file_of({}, length=2**63),
    "no JSON": file_of(b"{"),
    "not UTF-8": file_of(b'{"\xff":1}'),
    "a list": file_of([1]),
    "leading space": file_of(b" {}"),
    "NaN": file_of(b'{"a":NaN}'),
    "nesting": file_of(b'{"a":' + b"[" * 100_000),
    "number of 5000 digits": file_of(b'{"a":' + b"1" * 5000 + b"}"),
    "a name twice": file_of(b'{"a":%b,"a":%b}' % ((json.dumps(entry()).encode(),) * 2), bytes(4)),
    "metadata not text": file_of({"__metadata__": {"a": 1}}),
    "metadata null": file_of({"__metadata__": None}),
    "entry is a number": file_of({"a": 1}),
    "entry without shape": file_of({"a": {"dtype": "U8", "data_offsets": [0, 4]}}, bytes(4)),
    "unknown dtype": file_of({"a": entry("C128")}, bytes(4)),
    "dtype is a list": file_of({"a": entry(["U8"])}, bytes(4)),
    "negative shape": file_of({"a": entry(shape=[-4])}, bytes(4)),
    "fractional shape": file_of({"a": entry(shape=[4.0])}, bytes(4)),
    "boolean shape": file_of({"a": entry(shape=[4, True])}, bytes(4)),
    "huge shape": file_of({"a": entry(shape=[2**70])}, bytes(4)),
    "huge empty shape": file_of({"a": entry(shape=[2**70, 0], offsets=[0, 0])}),
    "half a byte": file_of({"a": entry("F4", [1], [0, 1])}, bytes(1)),
    "offsets of another size": file_of({"a": entry(offsets=[0, 3])}, bytes(3)),
    "offsets reversed": file_of({"a": entry(offsets=[4, 0])}, bytes(4)),
    "offsets negative": file_of({"a": entry(offsets=[-4, 0])}, bytes(4)),
    "three offsets": file_of({"a": entry(offsets=[0, 4, 8])}, bytes(4)),
    "a gap": file_of({"a": entry(), "b": entry(offsets=[5, 9])}, bytes(9)),
    "an overlap": file_of({"a": entry(), "b": entry(offsets=[2, 6])}, bytes(6)),
    "data cut": file_of({"a": entry()}, bytes(3)),
    "data beyond": file_of({"a": entry()}, bytes(5)),
    "data without tensors": file_of({}, bytes(1)),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_damage_is_named(content: bytes, tmp_path: Path) -> None:
    """One kind of error, with the file in it."""
    path = tmp_path / "f.safetensors"
    path.write_bytes(content)
    with pytest.raises(CorruptSnapshotError, match=r"f\.safetensors"):
        open_file(path)


def test_damage_names_the_tensor(tmp_path: Path) -> None:
    """And the tensor, where it is one tensor's."""
    (tmp_path / "f").write_bytes(DAMAGED["unknown dtype"])
    with pytest.raises(CorruptSnapshotError, match="'a'"):
        open_file(tmp_path / "f")


def test_no_file_at_all(tmp_path: Path) -> None:
    """A missing file is a snapshot that isn't intact; so is a directory in its place."""
    with pytest.raises(CorruptSnapshotError, match="missing"):
        open_file(tmp_path / "f")
    with pytest.raises(CorruptSnapshotError, match="missing"):
        open_file(tmp_path)


INTACT = filled(image_of(encode({"a": torch.ones(3), "b": np.zeros((2, 2), np.int16)}).tensors, {"k": "v"}))


@given(st.lists(st.tuples(st.integers(0, len(INTACT) - 1), st.integers(0, 255)), max_size=4), st.integers(0, 20))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
def test_any_damage_is_a_clean_error_or_a_correct_load(tmp_path: Path, flips: list[tuple[int, int]], cut: int) -> None:
    """Bytes changed anywhere, the end cut off: never another error, never what the official reader sees otherwise."""
    content = bytearray(INTACT[: len(INTACT) - cut])
    for place, value in flips:
        content[place % len(content)] = value
    path = tmp_path / "f"
    path.write_bytes(content)
    try:
        ours = {name: host.data.tobytes() for name, host in open_file(path).items()}
    except CorruptSnapshotError:
        return
    theirs = safetensors.deserialize(bytes(content))
    assert ours == {name: bytes(tensor["data"]) for name, tensor in theirs}
