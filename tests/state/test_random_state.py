"""Generators continue where they stood, and looking at them changes nothing."""

from __future__ import annotations

import functools
import random
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from ckpt_callbacks.errors import CorruptSnapshotError
from ckpt_callbacks.state import capture, capture_generators, generators, not_captured, restore, restore_generators
from tests.state.trees import through_memory

pytestmark = pytest.mark.filterwarnings("error")


def draw() -> list[Any]:
    """One draw of each kind that leaves something behind in its generator, such as the second of two normals."""
    return [
        random.random(),
        random.gauss(0, 1),
        np.random.random(),
        np.random.standard_normal(),
        torch.rand(3).tolist(),
        torch.randn(1).item(),
    ]


@pytest.fixture(autouse=True)
def _global_generators_as_they_were() -> Iterator[None]:
    """No test leaves its seeds to the next."""
    before = capture()
    bits = np.random.get_bit_generator()
    yield
    np.random.set_bit_generator(bits)
    restore(before)


def test_draws_go_on_as_they_would_have() -> None:
    """After a restore every library draws what it drew after the capture."""
    draw()  # leaves half a pair of normals behind
    state = through_memory(capture())
    expected = [draw() for _ in range(400)]
    draw()
    assert restore(state) == []
    assert [draw() for _ in range(400)] == expected


def test_capturing_draws_nothing() -> None:
    """With the callback and without: the same numbers."""
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(0)
    expected = [draw() for _ in range(3)]
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(0)
    drawn = []
    for _ in range(3):
        capture()
        drawn.append(draw())
    assert drawn == expected


def test_another_global_bit_generator_of_numpy() -> None:
    """numpy lets users replace it; the state says which one it was."""
    np.random.set_bit_generator(np.random.PCG64(3))
    state = through_memory(capture())
    expected = np.random.random(3).tolist()
    np.random.set_bit_generator(np.random.MT19937(1))
    assert restore(state) == []
    assert np.random.random(3).tolist() == expected


def test_parts_that_are_not_in_use_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their names come back; nothing is imported for them."""
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert restore({"tensorflow": {"seed": 1}, "torch": {}, "quantum": {}}) == ["tensorflow", "torch", "quantum"]
    assert "tensorflow" not in sys.modules


@pytest.mark.skipif(torch.cuda.is_available() or torch.backends.mps.is_available(), reason="this machine has them")
def test_devices_that_are_not_here_are_named() -> None:
    """A run that moved to a machine with fewer devices learns whose random state was dropped."""
    state = {"torch": {"cpu": torch.get_rng_state(), "cuda": [torch.zeros(16)], "mps": torch.zeros(16)}}
    assert restore(state) == ["torch.cuda:0", "torch.mps"]


def test_capture_imports_no_library() -> None:
    """A Keras run without torch doesn't pay for torch."""
    code = "import sys; from ckpt_callbacks.state import capture; print(list(capture()), 'torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split("\n")[0] == "['python', 'numpy'] False"


@pytest.mark.parametrize(
    "tree",
    [
        {"python": {"version": 3, "words": np.zeros(3), "gauss": None}},
        {"numpy": {}},
        {"torch": {"cpu": torch.zeros(1)}},
    ],
    ids=["python", "numpy", "torch"],
)
def test_a_state_that_does_not_fit(tree: Any) -> None:
    """It is named after its library."""
    with pytest.raises(CorruptSnapshotError, match=next(iter(tree))):
        restore(tree)


def test_nothing_is_missed_without_tensorflow() -> None:
    """Python, numpy and torch can always be captured."""
    if "tensorflow" not in sys.modules:
        assert not_captured() == {}


# Generators that an object holds -------------------------------------------------------------------------------------


class Slotted:
    """An object without a ``__dict__``."""

    __slots__ = ("__hidden", "never_set")

    def __init__(self, value: Any) -> None:
        self.__hidden = value


class Noisy:
    """A transform with a generator of its own, and a property that must not run."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    @property
    def trap(self) -> Any:
        """Not a place to look."""
        raise AssertionError("the walk must not run code")

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the walk must not ask for {name}")

    def jitter(self) -> float:
        """Draw."""
        return float(self.rng.random())


KINDS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "random.Random": (lambda: random.Random(1), lambda value: value.gauss(0, 1)),
    "numpy.Generator": (lambda: np.random.default_rng(1), lambda value: value.integers(2**16, dtype=np.uint16)),
    "numpy.RandomState": (lambda: np.random.RandomState(1), lambda value: value.standard_normal()),
    "numpy.BitGenerator": (lambda: np.random.MT19937(1), lambda value: value.random_raw()),
    "torch.Generator": (lambda: torch.Generator().manual_seed(1), lambda value: torch.randn(1, generator=value).item()),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_goes_on_where_it_stood(kind: str) -> None:
    """Half-used words and normals included."""
    make, step = KINDS[kind]
    holder = [make()]
    step(holder[0])
    state = through_memory(capture_generators(holder))
    assert state["[0]"]["kind"] == kind
    expected = [step(holder[0]) for _ in range(5)]
    fresh = [make()]
    assert restore_generators(fresh, state) == []
    assert [step(fresh[0]) for _ in range(5)] == expected


def test_where_generators_are_found() -> None:
    """Attributes, slots, containers, partials and bound methods; each generator once, the nearest path first."""
    shared = random.Random(0)
    tree = {
        "list": [1, shared, random.Random(4)],
        "tuple": ({"deep": Noisy(1)},),
        "deque": deque([Slotted(Noisy(2))]),
        "partial": functools.partial(print, rng=random.Random(1)),
        "method": Noisy(3).jitter,
        "again": shared,
        7: random.Random(2),
        "system": random.SystemRandom(),
        "opaque": [np.zeros(3), torch.ones(3), "text", random, Noisy, draw],
    }
    assert [path for path, _ in generators(tree)] == [
        "['again']",
        "[7]",
        "['list'][2]",
        "['partial'].keywords['rng']",
        "['method'].__self__.rng",
        "['tuple'][0]['deep'].rng",
        "['deque'][0]._Slotted__hidden.rng",
    ]


def test_a_data_loader() -> None:
    """Its own generator, its sampler's and its dataset's."""
    dataset = TensorDataset(torch.arange(8))
    dataset.noise = Noisy(5)  # type: ignore[attr-defined]
    sampler = RandomSampler(dataset, generator=torch.Generator().manual_seed(2))
    loader = DataLoader(dataset, batch_size=2, sampler=sampler, generator=torch.Generator().manual_seed(1))
    assert [path for path, _ in generators(loader)] == ["generator", "sampler.generator", "dataset.noise.rng"]
    state = through_memory(capture_generators(loader))
    first = [batch[0].tolist() for batch in loader]
    assert restore_generators(loader, state) == []
    assert [batch[0].tolist() for batch in loader] == first


def test_what_no_longer_fits_is_named() -> None:
    """A generator that is gone, or is of another kind now."""
    state = capture_generators({"a": random.Random(1), "b": random.Random(2), "c": random.Random(3)})
    live = {"b": np.random.default_rng(1), "c": random.Random(9)}
    assert restore_generators(live, state) == ["['a']", "['b']"]
    assert live["c"].random() == random.Random(3).random()


def test_another_bit_generator_is_refused() -> None:
    """A PCG64 can't go on as a Philox."""
    state = capture_generators([np.random.Generator(np.random.Philox(1))])
    with pytest.raises(CorruptSnapshotError, match=r"\[0\]"):
        restore_generators([np.random.default_rng(1)], state)


def test_the_walk_is_bounded() -> None:
    """Large data is not searched, and cycles end."""
    cycle: dict[str, Any] = {"data": [[i] for i in range(100_000)], "wide": [[[j] * 300 for j in range(300)]] * 300}
    cycle["self"] = cycle
    cycle["late"] = random.Random(1)
    assert [path for path, _ in generators(cycle)] == ["['late']"]
