"""One state of tensors, saved and loaded without any training: ours beside libraries, and the floors under both."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torch.distributed.checkpoint as dcp

from benchmarks.saving.measure import Figures, Meter, evict, make_durable, reserve_memory, serve, warm
from ckpt_callbacks.engine import Progress
from ckpt_callbacks.state.files import payload
from ckpt_callbacks.state.files.packing import Packer
from ckpt_callbacks.state.memory.arena import Arena
from ckpt_callbacks.state.memory.pages import fresh
from ckpt_callbacks.store import LocalStore, Manifest

State = dict[str, torch.Tensor]
Save = Callable[[State, Path], None]
Load = Callable[[State, Path], State]


class Ours:
    """What a save of the checkpointer does, all of it waited for."""

    def __init__(self) -> None:
        self.packer, self.arena = Packer(), Arena()

    def save(self, state: State, path: Path) -> None:
        """Stage and commit."""
        staged = self.packer.pack(state, None).stage(self.arena)
        self.id = LocalStore(path).commit(Manifest.draft(progress=Progress(1)), staged.files()).id
        staged.learn()
        staged.release()

    def load(self, state: State, path: Path) -> State:
        """Verify and read."""
        files, problems = LocalStore(path).load(self.id, fresh)
        assert problems == []
        return payload.read(files, path)[0]


def _flushed(save: Callable[[State, Path], Any]) -> Save:
    def both(state: State, path: Path) -> None:
        save(state, path)
        make_durable(path)

    return both


def _dcp_save(state: State, path: Path) -> None:
    dcp.save(dict(state), checkpoint_id=str(path), no_dist=True)


def _dcp_async(state: State, path: Path) -> None:
    dcp.async_save(dict(state), checkpoint_id=str(path), no_dist=True).result()


def _dcp_load(state: State, path: Path) -> State:
    found = {name: torch.empty_like(tensor) for name, tensor in state.items()}
    dcp.load(found, checkpoint_id=str(path), no_dist=True)
    return found


def _without_crc(state: State, path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    torch.save(state, path)


class Orbax:
    """Orbax's PyTree checkpointer, over numpy views of the same memory."""

    def __init__(self) -> None:
        import orbax.checkpoint

        self.checkpointer = orbax.checkpoint.PyTreeCheckpointer()

    def save(self, state: State, path: Path) -> None:
        """Save, and wait."""
        self.checkpointer.save(path, {name: tensor.numpy() for name, tensor in state.items()})

    def load(self, state: State, path: Path) -> State:
        """Restore as numpy arrays."""
        return {name: torch.from_numpy(array) for name, array in self.checkpointer.restore(path).items()}


def _raw(state: State, path: Path) -> None:
    """The same number of bytes, written past the page cache from memory that is warm, and flushed."""
    memory = _buffer(sum(tensor.nbytes for tensor in state.values()))
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_DIRECT", 0))
    for start in range(0, len(memory), 32 << 20):
        os.write(descriptor, memory[start : start + (32 << 20)])
    os.fsync(descriptor)
    os.close(descriptor)


def _raw_read(state: State, path: Path) -> State:
    """The same file, read past the page cache into memory that is warm: nothing that training could go on with."""
    memory = _buffer(sum(tensor.nbytes for tensor in state.values()))
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_DIRECT", 0))
    for start in range(0, len(memory), 32 << 20):
        os.preadv(descriptor, [memory[start : start + (32 << 20)]], start)
    os.close(descriptor)
    return {}


_buffers: dict[int, Any] = {}


def _buffer(size: int) -> memoryview:
    if size not in _buffers:
        import mmap

        pages = mmap.mmap(-1, -(-size // 4096) * 4096)
        for start in range(0, len(pages), 4096):
            pages[start] = 1
        _buffers[size] = pages
    return memoryview(_buffers[size])


class Copy:
    """One warm copy: the floor of what may stand still."""

    def __init__(self) -> None:
        self.copies: State = {}

    def save(self, state: State, path: Path) -> None:
        """Copy."""
        self.copies = self.copies or {name: torch.ones_like(tensor) for name, tensor in state.items()}
        for name, tensor in state.items():
            self.copies[name].copy_(tensor)


def _arms() -> dict[str, Callable[[], tuple[Save, Load | None]]]:
    """Each makes what saves, and what loads into memory that training could go on with."""
    torch_load = lambda state, path: torch.load(path)  # noqa: E731
    return {
        "warm copy": lambda: (Copy().save, None),
        "raw write and fsync": lambda: (_raw, _raw_read),
        "ours": lambda: ((ours := Ours()).save, ours.load),
        "torch.save": lambda: (_flushed(torch.save), torch_load),
        "torch.save without CRC": lambda: (_flushed(_without_crc), torch_load),
        "safetensors.save_file": lambda: (_flushed(safetensors.torch.save_file), _safetensors_load),
        "DCP save": lambda: (_flushed(_dcp_save), _dcp_load),
        "DCP async_save": lambda: (_flushed(_dcp_async), _dcp_load),
        "Orbax": lambda: (_flushed((orbax := Orbax()).save), orbax.load),
    }


def _safetensors_load(state: State, path: Path) -> State:
    """It maps the file; what shall be trained has to be copied from there."""
    return {name: tensor.clone() for name, tensor in safetensors.torch.load_file(path).items()}


def run(name: str, options: dict[str, Any]) -> Figures:
    """Save some times to files of their own (one of these after the first is what counts), then load the last."""
    torch.set_num_threads(options["threads"])
    save, load = _arms()[name]()
    count, nbytes = options["tensors"], options["mb"] * 10**6
    state = {f"layer.{index}.weight": torch.randn(nbytes // 4 // count) for index in range(count)}
    figures = Figures()
    with Meter(figures):
        for number in range(options["saves"]):
            path = Path(options["directory"]) / f"{number}"
            for tensor in state.values():
                tensor.add_(1.0)
            began = time.perf_counter()
            save(state, path)
            figures.inside.append(time.perf_counter() - began)
    figures.saves = options["saves"]
    for prepare, which in ((evict, "restore"), (warm, "restore_cached")) if load is not None else ():
        prepare(path)
        reserve_memory(3 * nbytes)
        began = time.perf_counter()
        found = load(state, path)
        setattr(figures, which, time.perf_counter() - began)
        expected = {} if load is _raw_read else state
        figures.exact = figures.exact and all(torch.equal(found[key], expected[key]) for key in expected)
    return figures


if __name__ == "__main__":
    serve({name: lambda options, name=name: run(name, options) for name in _arms()})
