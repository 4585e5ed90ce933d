"""Copies that GPUs make by themselves. What needs a GPU is skipped where there is none."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch

from ckpt_callbacks.state.files.packing import Packed, Packer
from ckpt_callbacks.state.memory.arena import Arena
from ckpt_callbacks.state.memory.pages import fresh
from ckpt_callbacks.state.tensors.devices import Flight, pin
from ckpt_callbacks.state.tensors.tensor import Source

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")

LARGE = 8_000_000  # elements: a copy that takes some time


def packed(**tensors: torch.Tensor) -> Packed:
    return Packer().pack(tensors, None)


def staged_values(one: Packed, staged) -> dict[str, np.ndarray]:
    """Name -> what the file's image holds."""
    (image,) = one.images.values()
    (part,) = staged.parts.values()
    spans = image.layout.spans
    return {name: part[slice(*spans[name])].view(np.float32) for name in image.tensors}


def test_without_a_gpu_nothing_flies():
    """Nothing is beside training, and nobody waits."""
    flight, tensor = Flight(), torch.ones(4)
    source = next(iter(next(iter(packed(w=tensor).images.values())).tensors.values()))
    assert not flight.takes(source, {tensor.data_ptr(): tensor}, np.zeros(16, np.uint8))
    assert isinstance(source, Source)
    flight.depart([source])
    flight.fence()
    flight.land()
    assert flight.is_whole()
    assert not flight.beside


def test_memory_is_pinned_only_for_a_gpu():
    """And stays usable either way."""
    memory = fresh(1 << 20)
    pin(memory)
    memory[:] = 7
    assert torch.from_numpy(memory).is_pinned() == torch.cuda.is_initialized()
    del memory
    gc.collect()


@on_gpu
@pytest.mark.parametrize("beside", [True, False])
def test_a_snapshot_has_the_values_of_its_boundary(beside):
    """Training changes its tensors right after, on the same stream: behind the copies, or behind the fence."""
    tensors = {"a": torch.full((LARGE,), 1.0, device="cuda"), "b": torch.full((3,), 2.0, device="cuda")}
    tensors |= {"c": torch.arange(6.0, device="cuda").reshape(2, 3).T, "d": torch.full((5,), 4.0)}
    steady = {tensors["a"].data_ptr(): tensors["a"]} if beside else {}
    arena = Arena(pin)
    for round_ in range(3):
        one = packed(**tensors)
        expected = {name: tensor.cpu().numpy().ravel().copy() for name, tensor in tensors.items()}
        staged = one.stage(arena, steady)
        assert staged.copying.unfinished == beside
        for name, tensor in tensors.items():
            if name != "a":
                tensor.mul_(3)
        assert staged.copying.conclude()
        tensors["a"].add_(round_ + 1)
        assert staged.copying.verdict()
        found = staged_values(one, staged)
        assert all(np.array_equal(found[name], expected[name]) for name in expected)
        staged.release()


@on_gpu
def test_a_tensor_that_is_changed_before_the_fence_makes_the_copy_torn():
    """As on a CPU: torch counts changes wherever a tensor is."""
    tensor = torch.ones(LARGE, device="cuda")
    staged = packed(a=tensor).stage(Arena(pin), {tensor.data_ptr(): tensor})
    tensor.add_(1)
    assert not staged.copying.conclude()
    assert not staged.copying.verdict()
    staged.release()


@on_gpu
def test_memory_of_a_tensor_that_is_gone_is_read_first():
    """The device does not get it back before the copy beside training is made."""
    tensor = torch.full((LARGE,), 5.0, device="cuda")
    one = packed(a=tensor)
    staged = one.stage(Arena(pin), {tensor.data_ptr(): tensor})
    del tensor
    others = [torch.full((LARGE,), 9.0, device="cuda") for _ in range(3)]
    assert staged.copying.conclude()
    assert staged.copying.verdict()
    assert np.all(staged_values(one, staged)["a"] == 5)
    assert len(others) == 3
