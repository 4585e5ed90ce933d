"""Copies out of GPUs, which a device makes by itself while training goes on, into memory that is pinned for it.

Copies are queued on a stream, behind what was queued there before, so the host waits for none of them. What the next
batch may change is copied on the stream that trains, before anything that comes later there. What stays as it is until
an optimizer steps is copied on a stream of its own, beside training; before the step, training's stream is told to wait
for that one (`Flight.fence`). Whoever reads the memory waits until all has arrived (`Flight.land`).

Source: CUDA C++ Programming Guide, "Asynchronous Concurrent Execution" and "Page-Locked Host Memory". To memory that
is not pinned the same calls copy at once.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ckpt_callbacks.state.memory.copying import changes_of
from ckpt_callbacks.state.memory.pages import Bytes
from ckpt_callbacks.state.tensors.tensor import Source

__all__ = ["Flight", "pin"]

_PORTABLE = 1
"""``cudaHostRegisterPortable``: pinned for every device."""


class Flight:
    """The copies out of GPUs that one snapshot needs. Without a GPU there are none, and nothing here does anything.

    For the thread that trains, but for `land`.
    """

    def __init__(self) -> None:
        self._changes: list[tuple[Callable[[], object], object]] = []
        self._sources: list[Any] = []  # not given back to the device before they were read
        self._sides: dict[Any, Any] = {}  # device -> the stream beside training
        self._beside: list[tuple[Any, Any]] = []  # device, the event after which its copies beside training are made
        self._arrivals: list[Any] = []  # the events after which all is there

    @property
    def beside(self) -> bool:
        """Whether something is copied beside training."""
        return bool(self._sides)

    def takes(self, source: Source, steady: Mapping[int, Any], out: Bytes) -> bool:
        """Begin to copy a tensor to ``out`` beside training, if it is on a GPU and among those in ``steady``."""
        array = source.array
        if source.library.name != "torch" or not array.is_cuda or not array.is_contiguous():
            return False
        live = steady.get(array.data_ptr())
        if live is None or live.nbytes != array.nbytes:
            return False
        changes = changes_of(live)
        self._changes.append((changes, changes()))
        with sys.modules["torch"].cuda.stream(self._side(array.device)):
            source.copy_into(out)
        self._sources.append(array)
        return True

    def _side(self, device: Any) -> Any:
        if device not in self._sides:
            cuda = sys.modules["torch"].cuda
            self._sides[device] = _stream_beside(device)
            self._sides[device].wait_stream(cuda.current_stream(device))  # what was computed up to now
        return self._sides[device]

    def depart(self, sources: Iterable[Source]) -> None:
        """All copies are queued, of these tensors: note when they will have arrived."""
        torch = sys.modules.get("torch")
        if torch is None or not torch.cuda.is_initialized():
            return
        for device in {one.array.device for one in sources if one.library.name == "torch" and one.array.is_cuda}:
            self._arrivals.append(_event_on(torch.cuda.current_stream(device)))
        for device, side in self._sides.items():
            event = _event_on(side)
            self._beside.append((device, event))
            self._arrivals.append(event)

    def fence(self) -> None:
        """Let training's stream wait for the copies beside it. The host goes on."""
        for device, event in self._beside:
            sys.modules["torch"].cuda.current_stream(device).wait_event(event)

    def is_whole(self) -> bool:
        """Whether nothing that is copied beside training was changed up to now."""
        return all(changes() == before for changes, before in self._changes)

    def land(self) -> None:
        """Wait until everything has arrived. From any thread, and as often as you like."""
        for event in self._arrivals:
            event.synchronize()
        self._sources.clear()
        self._changes.clear()


def pin(memory: Bytes) -> None:
    """Lock memory in its place, so that GPUs can write there by themselves, as long as it lives; if there are any.

    Where the system does not allow so much, it stays as it is: copies take longer, and training waits for them.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return
    address = memory.__array_interface__["data"][0]
    if int(torch.cuda.cudart().cudaHostRegister(address, memory.nbytes, _PORTABLE)) == 0:
        weakref.finalize(memory, _unpin, address).atexit = False  # the driver may be gone by then
    else:
        with contextlib.suppress(RuntimeError):
            torch.zeros(1, device="cuda")  # the error waits for the next call that asks: it must not be training's


def _unpin(address: int) -> None:
    sys.modules["torch"].cuda.cudart().cudaHostUnregister(address)


@functools.cache
def _stream_beside(device: Any) -> Any:
    return sys.modules["torch"].cuda.Stream(device)


def _event_on(stream: Any) -> Any:
    """It sleeps while it waits: the processor is training's."""
    return stream.record_event(sys.modules["torch"].cuda.Event(blocking=True))
