"""A copy that is made beside training: whole, or known not to be."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from ckpt_callbacks.state.files.packing import Packer
from ckpt_callbacks.state.memory import copying as module
from ckpt_callbacks.state.memory.copying import Copier, Copying, Lent
from ckpt_callbacks.state.tensors.devices import Flight


def lent(tensor: torch.Tensor) -> Lent:
    """A tensor's bytes, with torch's own count of its changes."""
    found = Packer().pack({"w": tensor}, None).images["model.safetensors"].tensors["w"]
    result = found.lent({tensor.data_ptr(): tensor})
    assert result is not None
    return result


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that there are many."""
    monkeypatch.setattr(module, "PIECE", 1000)


def copied(copying: Copying) -> bool:
    """Let a thread make it, and give the verdict."""
    thread = threading.Thread(target=copying.work)
    thread.start()
    whole = copying.conclude()
    thread.join()
    return whole


def test_what_is_copied_is_whole() -> None:
    """Whoever waits for the verdict gets the same."""
    tensors = [torch.randn(100_003), torch.randn(5), torch.randn(250)]
    outs = [np.zeros(tensor.nbytes, np.uint8) for tensor in tensors]
    copying = Copying([(lent(tensor), out) for tensor, out in zip(tensors, outs, strict=True)], Flight())
    assert copying.unfinished
    assert copied(copying)
    assert copying.verdict()
    assert not copying.unfinished
    assert all(out.tobytes() == tensor.numpy().tobytes() for tensor, out in zip(tensors, outs, strict=True))


@pytest.mark.parametrize(
    "change",
    [
        lambda tensor: tensor.add_(1),
        lambda tensor: tensor.detach()[7:8].zero_(),
        lambda tensor: torch._foreach_add_([tensor], 1.0),
        lambda tensor: tensor.view(-1, 1).copy_(torch.zeros(2000, 1)),
    ],
    ids=["in place", "a part, by another view", "many at once", "copied over"],
)
def test_a_change_under_way_is_found(change) -> None:
    """Torch counts it, by whichever view of the tensor it is made; nothing is copied twice to find out."""
    tensor = torch.ones(2000)
    copying = Copying([(lent(tensor), np.zeros(tensor.nbytes, np.uint8))], Flight())
    change(tensor)
    assert not copied(copying)
    assert not copying.verdict()


def test_a_change_that_is_under_way_when_all_is_copied_is_found() -> None:
    """Torch counts a change after it was made: a verdict before that would call the copy whole."""
    tensor, seen = torch.ones(2000), []
    copying = Copying([(lent(tensor), np.zeros(tensor.nbytes, np.uint8))], Flight())
    copying.work()
    seen.append(copying.unfinished)
    tensor.add_(1)
    assert seen == [True]
    assert not copying.conclude()


def test_a_change_afterwards_does_not_count() -> None:
    """Nor does the copy hold on to anything: training may need the memory."""
    tensor = torch.ones(2000)
    out = np.zeros(tensor.nbytes, np.uint8)
    copying = Copying([(lent(tensor), out)], Flight())
    assert copied(copying)
    tensor.zero_()
    assert copying.conclude()
    assert copying.verdict()
    assert out.view(np.float32).min() == 1
    assert copying._counts == copying._pairs == []


def test_a_copy_that_fails_is_not_whole() -> None:
    """Nobody waits for it for ever."""
    tensor = torch.ones(2000)
    copying = Copying([(lent(tensor), np.zeros(3, np.uint8))], Flight())
    with pytest.raises(ValueError, match="broadcast"):
        copying.work()
    assert not copying.conclude()


def test_a_tensor_that_is_lent_stays_as_free_as_it_was() -> None:
    """Its storage can still be resized; what it is given instead does not change the copy, which counts as torn."""
    tensor = torch.ones(2000)
    out = np.zeros(tensor.nbytes, np.uint8)
    copying = Copying([(lent(tensor), out)], Flight())
    assert tensor.untyped_storage().resizable()
    tensor.data = torch.zeros(2000)
    assert not copied(copying)
    assert out.view(np.float32).min() == 1


def test_changes_through_data_are_not_counted_but_seen() -> None:
    """If they are everywhere. Elsewhere than where one looks they are not: so code that says ``.data`` is kept out."""
    for change, whole in ((slice(None), False), (slice(5, 6), True)):
        tensor = torch.ones(20_000)
        copying = Copying([(lent(tensor), np.zeros(tensor.nbytes, np.uint8))], Flight())
        tensor.data[change] = 0
        assert copied(copying) is whole


def test_nothing_to_copy_is_done() -> None:
    """At once."""
    copying = Copying([], Flight())
    assert not copying.unfinished
    assert copying.conclude()
    assert copying.verdict()


@pytest.mark.parametrize(
    "tensor",
    [torch.randn(64, 64).t(), torch.randn(64, 64)[:, :32], torch.zeros(4000, dtype=torch.bool)[::2]],
    ids=["transposed", "a part", "every other"],
)
def test_what_is_not_one_block_is_copied_at_once(tensor: torch.Tensor) -> None:
    """Its bytes in C order are nobody's."""
    found = Packer().pack({"w": tensor}, None).images["model.safetensors"].tensors["w"]
    assert found.lent({tensor.data_ptr(): tensor}) is None


def test_only_what_is_vouched_for_is_lent() -> None:
    """By its address and size: a larger tensor that begins there is another one."""
    tensor = torch.randn(2000)
    found = Packer().pack({"w": tensor, "a": np.zeros(2000)}, None).images["model.safetensors"].tensors
    assert found["w"].lent({}) is None
    assert found["w"].lent({tensor.data_ptr(): tensor[:-1]}) is None
    assert found["a"].lent({tensor.data_ptr(): tensor}) is None


def test_an_array_over_a_tensor_is_lent_with_the_count_of_the_tensor() -> None:
    """As a variable of Keras on torch is read."""
    tensor = torch.randn(2000)
    found = Packer().pack({"a": tensor.numpy()}, None).images["model.safetensors"].tensors["a"]
    lent = found.lent({tensor.data_ptr(): tensor})
    before = lent.changes()
    assert lent.data.tobytes() == tensor.numpy().tobytes()
    tensor.add_(1)
    assert lent.changes() != before


def test_the_thread_copies_and_ends() -> None:
    """It may be used again after that."""
    before, copier = set(threading.enumerate()), Copier()
    for _ in range(2):
        tensor = torch.randn(50_000)
        out = np.zeros(tensor.nbytes, np.uint8)
        copying = Copying([(lent(tensor), out)], Flight())
        copier.begin(copying.work)
        copier.close()
        assert copying.conclude()
        assert out.tobytes() == tensor.numpy().tobytes()
    assert set(threading.enumerate()) <= before


def test_the_thread_outlives_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    """Training would wait for the next copy for ever."""
    tensor, copier = torch.randn(5000), Copier()
    wrong = Copying([(lent(tensor), np.zeros(3, np.uint8))], Flight())
    copier.begin(wrong.work)
    assert not wrong.conclude()
    right = Copying([(lent(tensor), np.zeros(tensor.nbytes, np.uint8))], Flight())
    copier.begin(right.work)
    assert right.conclude()
    copier.close()
    assert "is made again" in caplog.text
