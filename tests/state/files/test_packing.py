"""Packing: what comes back in another type is named, files are laid out, and what stays the same lies apart."""

from __future__ import annotations

import enum
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ckpt_callbacks.state import Image, Layout
from ckpt_callbacks.state.files import payload
from ckpt_callbacks.state.files.packing import Packed, Packer
from ckpt_callbacks.state.memory.arena import Arena
from ckpt_callbacks.state.memory.pages import fresh


class Phase(enum.Enum):
    """An enum of the user's."""

    WARM, COLD = 1, 2


def test_what_comes_back_plain_is_named_once_for_each_attribute() -> None:
    """A list of a thousand members is one line, by the name that the user knows."""
    phases = {"in": "module", "key": "phases", "value": [Phase.WARM, {"x": Phase.COLD}] * 500, "fill": True}
    missing = Packer().pack({}, {"live": {"attributes": [phases]}, "phase": Phase.WARM}).missing
    assert missing == {
        "module.phases": "1000 times: Phase comes back as a plain value",
        "phase": "Phase comes back as a plain value",
    }


def on_disk(packed: Packed, directory: Path, arena: Arena | None = None) -> Path:
    """Stage a state and write its files."""
    directory.mkdir()
    staged = packed.stage(arena or Arena())
    for name, chunks in staged.files().items():
        (directory / name).write_bytes(b"".join(chunks))
    staged.learn()
    staged.release()
    return directory


def read(directory: Path) -> tuple[dict[str, Any], Any, dict[str, str]]:
    """What a directory holds, by way of memory."""
    files = {path.name: memoryview(bytearray(path.read_bytes())) for path in directory.iterdir()}
    return payload.read(files, directory)


def test_a_staged_state_is_that_of_the_moment() -> None:
    """Training goes on, and what was staged stays."""
    weight = torch.ones(3)
    staged = Packer().pack({"w": weight}, None).stage(Arena())
    weight.zero_()
    assert staged.parts[payload.MODEL].view(np.float32)[-3:].tolist() == [1, 1, 1]


def test_a_frozen_part_lies_in_a_file_of_its_own(tmp_path: Path) -> None:
    """Under the hub's names, with an index; what is read is the same, tied weights too."""
    body, head = torch.randn(600, 600), torch.randn(4)
    weights = {"body": body, "head": head, "tied": body}
    path = on_disk(Packer().pack(weights, {"moment": torch.ones(2)}, frozen={"body"}), tmp_path / "s")
    assert {file.name for file in path.iterdir()} == {
        *("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", payload.INDEX),
        *(payload.STATE, payload.TREE),
    }
    index = json.loads((path / payload.INDEX).read_text())
    assert index["weight_map"] == {
        "head": "model-00001-of-00002.safetensors",
        "body": "model-00002-of-00002.safetensors",
    }
    assert index["metadata"]["total_size"] == body.nbytes + head.nbytes
    found, rest, missing = read(path)
    assert all(torch.equal(found[name], tensor) for name, tensor in weights.items())
    assert found["tied"] is found["body"]
    assert rest["moment"].tolist() == [1, 1]
    assert missing == {}


def test_large_tensors_stay_where_their_file_was_read_to(tmp_path: Path) -> None:
    """No second copy of the state, unless one lies where no allocator puts a tensor; small ones don't keep it."""
    rest = {"large": torch.randn(1 << 20), "small": torch.randn(8), "zodd": torch.randn((1 << 20) + 1)}
    path = on_disk(Packer().pack({}, {**rest, "odd": torch.randn(3), "array": np.arange(1 << 20)}), tmp_path / "s")
    memory = fresh((path / payload.STATE).stat().st_size)
    memory[: (path / payload.STATE).stat().st_size] = np.fromfile(path / payload.STATE, np.uint8)
    where = memory.ctypes.data
    files = {payload.STATE: memory.data[: (path / payload.STATE).stat().st_size]}
    files |= {name: memoryview((path / name).read_bytes()) for name in (payload.MODEL, payload.TREE)}
    found = payload.read(files, path)[1]
    assert all(torch.equal(found[name], tensor) for name, tensor in rest.items())
    inside = {name for name in rest if 0 <= found[name].data_ptr() - where < memory.nbytes}
    assert inside == {"large"}
    assert all(tensor.data_ptr() % 64 == 0 for tensor in (found["large"], found["zodd"]))
    assert 0 <= found["array"].ctypes.data - where < memory.nbytes
    found["large"].add_(1)


def test_what_training_leaves_alone_has_the_same_file_each_time(tmp_path: Path) -> None:
    """Found out from the bytes, of the weights and of all else; the memory is the same, too."""
    packer, arena = Packer(), Arena()
    still, moving = torch.randn(600, 600), torch.zeros(600, 600)
    paths = []
    for number in range(4):
        moving += 1
        state = packer.pack({"a": moving, "b": still}, {"c": still.clone(), "d": moving.clone()})
        paths.append(on_disk(state, tmp_path / str(number), arena))
    for base in ("model", "state"):
        files = [(path / f"{base}-00002-of-00002.safetensors") for path in paths[2:]]
        assert files[0].read_bytes() == files[1].read_bytes()
        assert files[0].stat().st_size > still.nbytes
    assert [read(path)[0]["a"][0, 0].item() for path in paths] == [1, 2, 3, 4]


def test_a_file_is_laid_out_anew_only_if_it_must_be(tmp_path: Path) -> None:
    """That takes as long as the walk where tensors are many. What a packer remembers changes no byte."""
    packer, layouts = Packer(), []
    states: list[dict[str, torch.Tensor]] = [
        {"a": torch.ones(3)},
        {"a": torch.zeros(3)},
        {"a": torch.zeros(3, dtype=torch.int32)},
        {"a": torch.zeros(1, 3, dtype=torch.int32)},
        {"a": (tied := torch.zeros(1, 3, dtype=torch.int32)), "b": tied},
        {"b": torch.zeros(1, 3, dtype=torch.int32)},
    ]
    for number, state in enumerate(states):
        packed = packer.pack(state, {"moments": list(state.values())})
        layouts.append(packed.images[payload.MODEL].layout)
        anew = on_disk(Packer().pack(state, {"moments": list(state.values())}), tmp_path / f"anew {number}")
        for path in on_disk(packed, tmp_path / str(number)).iterdir():
            assert path.read_bytes() == (anew / path.name).read_bytes()
    assert layouts[0] is layouts[1]
    assert len({id(layout) for layout in layouts}) == 5


def test_a_state_that_cannot_be_copied_gives_its_memory_back() -> None:
    """A device that fails in the middle of a save leaves room for the next."""

    class Lost:
        dtype, shape, nbytes = "U8", (8,), 8

        def copy_into(self, out: np.ndarray) -> None:
            raise RuntimeError("device lost")

    arena = Arena()
    lost = {"a": Lost()}
    packed = Packed({payload.MODEL: Image(Layout.of(lost), lost)}, {}, {}, {})
    with pytest.raises(RuntimeError, match="device lost"):
        packed.stage(arena)
    assert arena._idle is not None


def test_small_tensors_side_by_side_are_copied_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of any layout and type; byte for byte what each alone would be."""
    tensors = {f"{number}": torch.randn(number % 7 + 1, 3).t() for number in range(50)}
    tensors |= {f"h{number}": torch.randn(5).half() for number in range(9)} | {"large": torch.randn(1 << 15)}
    tensors |= {
        "array": np.arange(6.0),
        "none": torch.empty(0),
        "scalar": torch.tensor(2.5),
        "nan": torch.full((3,), torch.nan),
    }
    gathered = on_disk(Packer().pack(tensors, None), tmp_path / "a", Arena())
    monkeypatch.setattr("ckpt_callbacks.state.files.packing.SMALL", 0)
    alone = on_disk(Packer().pack(tensors, None), tmp_path / "b", Arena())
    assert (gathered / payload.MODEL).read_bytes() == (alone / payload.MODEL).read_bytes()
    found = read(gathered)[0]
    assert all(np.array_equal(found[name], tensor, equal_nan=True) for name, tensor in tensors.items())
