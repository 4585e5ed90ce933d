"""Random states inside worker processes: sent back with each batch, put back in new workers.

A worker draws random numbers while it loads. `Start`, run in each worker as it starts (it stands in for the loader's
``worker_init_fn``), lets every batch come back as `Stamped` with the states that the worker's generators have after
it. New workers that get the stamps of the last batches that training used go on as the old ones would have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils.data import IterableDataset, get_worker_info

from ckpt_callbacks._torch_data import private
from ckpt_callbacks._torch_data.memory import Memory, Values, changed, outline, put_back, values
from ckpt_callbacks._torch_data.splices import same
from ckpt_callbacks.state import random_state

__all__ = ["Stamp", "Stamped", "Start"]

SMALL = 1 << 20
"""The most bytes of an attribute that a worker keeps a copy of, to have it as it was born."""


@dataclass
class Stamp:
    """Where a worker's generators stood.

    Attributes:
        worker: its number.
        state: after the batch; None on its way, if it is the same as in the stamp before.
        began: when this iteration began in the worker, if that is not the state of the stamp before; else None.
        remembers: why a new worker could not go on from the state alone, or "".
        moves: whether attributes of the data set were seen to change while it is read.
    """

    worker: int
    state: dict[str, Any] | None
    began: dict[str, Any] | None
    remembers: str
    moves: bool = False


@dataclass
class Stamped:
    """A batch on its way from a worker."""

    batch: Any
    stamp: Stamp

    def pin_memory(self) -> Stamped:
        """As torch's pinning thread asks for it."""
        return replace(self, batch=private.pin_memory(self.batch))


class Start:
    """What a worker runs as it starts.

    Args:
        own: the loader's ``worker_init_fn``.
        states: worker -> the state that it takes instead of what its seed gives.
        iteration: the state is taken when the worker begins its first iteration, or its second.
    """

    def __init__(self, own: Callable[[int], Any] | None, states: Mapping[int, Any], iteration: int) -> None:
        self.own, self.states, self.iteration = own, dict(states), iteration

    def __call__(self, worker: int) -> None:
        """Let the user's function run, and have this worker's batches stamped."""
        if self.own is not None:
            self.own(worker)
        info = get_worker_info()
        assert info is not None, "torch calls this in a worker"
        _Clerk(worker, info.dataset, self.states.get(worker), self.iteration)


class _Clerk:
    """Stamps the batches of the worker process that it lives in."""

    def __init__(self, worker: int, dataset: Any, state: dict[str, Any] | None, iteration: int) -> None:
        self.worker, self._parts = worker, {"dataset": dataset, "collate_fn": None}
        self._state, self._iteration = state, iteration
        self._iterations = 0
        self._sent: Any = None
        self._began: Any = None
        self._last: Any = None  # before the last fetch
        self._replays = isinstance(dataset, IterableDataset)  # from the iteration's beginning, which is all it needs
        self._memory = Memory(self._parts, saved=self._replays)
        self._attributes = outline(self._parts)
        # A loader may fetch in the iteration that only lets its workers be born as they were.
        self._born = values(self._parts, self._attributes, SMALL) if state is not None and iteration > 1 else {}
        self._values: Values = {}  # of the attributes, what had changed when the iteration began
        self._lost = ""
        self._generators: Sequence[tuple[str, Any]] = ()
        private.follow_fetchers(dataset, self.begin, self.fetch)

    def begin(self, collate_fn: Any) -> None:
        """An iteration begins; an iterable data set is about to be asked for its iterator."""
        self._parts["collate_fn"] = collate_fn
        self._iterations += 1
        if self._iterations == self._iteration and self._state is not None:
            put_back(self._parts, {**self._born, **self._state["values"]}, self._attributes)
            _restore(self._parts, self._state)  # afterwards: a generator is made where None was
        self._look()
        self._generators = random_state.generators(self._parts)
        self._last = now = self._capture()
        self._began = None if same(now, self._sent) else now

    def _look(self) -> None:
        """See what the last iteration has changed."""
        self._values, lost = changed(self._parts, self._attributes)
        if self._memory.look() or lost:
            self._lost = "its data set changes while it is read"
        self._memory = Memory(self._parts, saved=self._replays)  # what changes from iteration to iteration is state

    def fetch(self, load: Callable[[Any], Any], index: Any) -> Stamped:
        """Load a batch, and stamp it."""
        batch = load(index)
        began, self._began = self._began, None
        moves = False
        if self._memory.used():
            self._generators = random_state.generators(self._parts)  # some are made at the first draw
            moves = not same(changed(self._parts, self._attributes)[0], self._values)
        now = self._capture()
        self._memory.draws = self._memory.draws or not same(now, self._last)
        state, self._sent = (None if same(now, self._sent) else now), now
        self._last = now
        why = self._lost or ("its data set changes while it is read" if self._memory.remembers else "")
        return Stamped(batch, Stamp(self.worker, state, began, why, moves))

    def _capture(self) -> dict[str, Any]:
        return {**_capture(self._generators), "values": self._values}


def _capture(generators: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """The states of a worker's generators; arrays travel in the message, where tensors would take shared memory."""
    state = random_state.capture(("python", "numpy", "torch", "scripts"))
    state["torch"] = state["torch"]["cpu"].numpy()
    state["scripts"] = _arrays(state.get("scripts", {}))
    return {**state, "own": _arrays({path: random_state.read_generator(own) for path, own in generators})}


def _restore(parts: Any, state: Mapping[str, Any]) -> None:
    tensor, scripts = torch.from_numpy(state["torch"].copy()), _tensors(state["scripts"])
    libraries = {"python": state["python"], "numpy": state["numpy"], "torch": {"cpu": tensor}}
    random_state.restore({**libraries, "scripts": scripts})
    random_state.restore_generators(parts, _tensors(state["own"]))


def _arrays(own: Mapping[str, Any]) -> dict[str, Any]:
    return {
        path: {**saved, "state": saved["state"].numpy()} if saved["kind"] == "torch.Generator" else saved
        for path, saved in own.items()
    }


def _tensors(own: Mapping[str, Any]) -> dict[str, Any]:
    return {
        path: {**saved, "state": torch.from_numpy(saved["state"].copy())}
        if saved["kind"] == "torch.Generator"
        else saved
        for path, saved in own.items()
    }
