"""A loader returns to its place, by index or by loading again, whatever draws random numbers on the way."""

from __future__ import annotations

import random
import time

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, get_worker_info
from torch.utils.data._utils.pin_memory import pin_memory
from torchdata.stateful_dataloader import StatefulDataLoader

from ckpt_callbacks import ResumeError
from ckpt_callbacks._torch_data import memory, splices
from ckpt_callbacks._torch_data.memory import Memory
from ckpt_callbacks._torch_data.source import Source
from ckpt_callbacks._torch_data.splices import Splices
from ckpt_callbacks._torch_data.workers import Stamp, Stamped
from ckpt_callbacks.state import decode, encode, random_state
from tests.jobs.lightning_data_jobs import AsItGoes, Everything, Mixes, Reshapes, Shards

X, Y = torch.arange(40.0).repeat(6, 1).T.contiguous(), torch.zeros(40, 1)

# Name -> a loader, and whether its batches can be skipped.
LOADERS = {
    "by index": (lambda: DataLoader(Everything(X, Y), 4, shuffle=True), True),
    "one sample at a time": (lambda: DataLoader(Everything(X, Y), None, shuffle=True), True),
    "with replacement": (
        lambda: DataLoader(
            Everything(X, Y), 4, sampler=RandomSampler(X, True, generator=torch.Generator().manual_seed(1))
        ),
        True,
    ),
    "a sampler that draws as it goes": (lambda: DataLoader(Everything(X, Y), batch_sampler=AsItGoes(40, "")), True),
    "workers": (lambda: DataLoader(Everything(X, Y), 4, shuffle=True, num_workers=2), True),
    "a stream": (lambda: DataLoader(Shards(X, Y), 4), False),
    "a stream with workers": (lambda: DataLoader(Shards(X, Y), 4, num_workers=2), False),
    "an __iter__ of its own": (lambda: Reshapes(Everything(X, Y), 4, shuffle=True), False),
    "a data set that keeps samples": (lambda: DataLoader(Keeps(X, Y), 4, shuffle=True), True),
    "a data set that keeps objects": (lambda: DataLoader(KeepsObjects(X, Y), 4, shuffle=True), False),
    "no DataLoader": (lambda: [torch.rand(3) for _ in range(10)], False),
}


class Keeps(Mixes):
    """Keeps the samples themselves."""

    def __init__(self, x, y):
        super().__init__(x, y)
        self.kept = []

    def __getitem__(self, index):
        self.kept.append(self.x[index])
        return sum(self.kept[-3:]), self.y[index]


class KeepsObjects(Mixes):
    """Keeps objects, which no file can bring back."""

    def __init__(self, x, y):
        super().__init__(x, y)
        self.kept = []

    def __getitem__(self, index):
        self.kept.append(SimpleObject(self.x[index]))
        return sum(one.value for one in self.kept[-3:]), self.y[index]


class SimpleObject:
    """A value."""

    def __init__(self, value):
        self.value = value


def seed(number):
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)


def disturb():
    """What training draws between two batches."""
    torch.rand(7)
    random.random()
    np.random.rand()


def read(source, batches):
    """Some batches as bytes, with training in between."""
    found = []
    for _ in range(batches):
        disturb()
        batch = next(source)
        found.append(
            b"".join(part.numpy().tobytes() for part in (batch if isinstance(batch, list | tuple) else [batch]))
        )
    return found


@pytest.fixture(autouse=True)
def _quiet():
    torch.set_num_threads(1)


@pytest.mark.parametrize("taken", [0, 1, 4, 8])
@pytest.mark.parametrize("name", LOADERS)
def test_it_returns_to_its_place(name, taken):
    """Another source of an equal loader goes on as the first one did, from another seed."""
    make, skips = LOADERS[name]
    seed(1)
    source = Source(make())
    iter(source)
    read(source, taken)
    place, now, own = source.place(), random_state.capture(), random_state.capture_generators(source.loader)
    values = source.values()
    expected = read(source, 1)

    seed(1)
    other = Source(make())
    seed(2)
    other.return_to(place)
    random_state.restore(now)
    random_state.restore_generators(other.loader, own)
    other.put_back_values(values)
    assert read(other, 1) == expected
    assert other.taken == taken + 1
    if taken == 8:
        assert (other.skipped, other.replayed) == ((8, 0) if skips else (0, 8))


class Slow(IterableDataset):
    """Counts how often it was read to the end; the second worker takes its time with each beginning."""

    def __init__(self):
        self.readings = 0

    def __iter__(self):
        worker = get_worker_info().id
        time.sleep(0.3 * worker)
        for number in range(6):
            yield torch.tensor([worker, number + 100 * self.readings + random.random()])
        self.readings += 1


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")
@pytest.mark.parametrize("kind", [DataLoader, StatefulDataLoader])
@pytest.mark.parametrize("to_the_end", [True, False])
@pytest.mark.parametrize("taken", [0, 1, 5, 6])
def test_a_stream_in_living_workers_returns_before_all_of_them_told_how_they_began(kind, to_the_end, taken):
    """How they ended the iteration before tells as much; that one is read once more. Lightning asks for no more than
    the batches that a length tells."""

    def made():
        return Source(kind(Slow(), 2, num_workers=2, persistent_workers=True))

    seed(1)
    source = made()
    for _ in range(2):
        iter(source)
        assert len(read(source, 6)) == 6
        assert not to_the_end or next(source, None) is None
    iter(source)
    read(source, taken)
    place, now = source.place(), random_state.capture()
    assert (place["before"] is not None) == (taken < 5)
    expected = read(source, 6 - taken)

    seed(1)
    other = made()
    seed(2)
    other.return_to(place)
    random_state.restore(now)
    assert read(other, 6 - taken) == expected
    assert other.taken == 6


def test_it_hands_out_what_the_loader_would():
    """Watching changes nothing: the same batches, the same random numbers."""
    for name, (make, _) in LOADERS.items():
        results = []
        for wrap in (iter, lambda loader: iter(Source(loader))):
            seed(5)
            results.append((read(wrap(make()), 9), random_state.capture()["torch"]["cpu"].tolist(), random.getstate()))
        assert results[0] == results[1], name


def test_data_that_got_shorter_are_refused():
    """A place that is no more in the data is an error, and no endless loop."""
    source = Source(DataLoader(torch.arange(20), 2))
    iter(source)
    for _ in range(8):
        next(source)
    with pytest.raises(ResumeError, match="ended after 3 batches"):
        Source(DataLoader(torch.arange(6), 2)).return_to(source.place())


def test_workers_from_before_are_named():
    """Workers that live since someone looked at a batch can't tell where they stand; new ones can."""
    loader = DataLoader(Everything(X, Y), 4, shuffle=True, num_workers=1, persistent_workers=True)
    next(iter(loader))
    source = Source(loader)
    iter(source)
    read(source, 3)
    assert list(source.missing()) == ["data (persistent_workers)"]
    assert source.how() == "replayed with loading"


def test_other_numbers_of_workers_are_said(capsys, caplog):
    """Going on with workers where there were none works, and the user reads that random numbers will differ."""
    source = Source(DataLoader(torch.arange(40), 2))
    iter(source)
    next(source)
    other = Source(DataLoader(torch.arange(40), 2, num_workers=1))
    other.return_to(source.place())
    assert next(other).tolist() == [2, 3]
    assert "0 workers" in capsys.readouterr().err + caplog.text


def test_what_cannot_be_exact_is_named(monkeypatch):
    """A sampler that draws in every batch, for more batches than are kept, is named."""
    monkeypatch.setattr(splices, "MAX_SPLICES", 3)
    source = Source(DataLoader(Everything(X, Y), batch_sampler=AsItGoes(40, "")))
    iter(source)
    read(source, 2)
    assert source.missing() == {}
    read(source, 4)
    assert list(source.missing()) == ["data (order)"]


def test_draws_that_nothing_disturbs_need_no_splice():
    """Only where something else moved the generator in between is its state kept."""
    kept = Splices(None, everywhere=True)
    for number in range(6):
        if number == 4:
            torch.rand(1)
        kept.draw(lambda: torch.rand(1))
    assert list(kept.kept) == [4]
    assert list(kept.kept[4]) == ["torch"]


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        (lambda data: data.items.append(object()), True),
        (lambda data: data.objects[0].__setattr__("value", "another"), False),
        (lambda data: data.objects.append(SimpleObject(3)), True),
        (lambda data: data.items.append(torch.zeros(1)), False),
        (lambda data: setattr(data, "cache", torch.zeros(300_000)), False),
        (lambda data: data.tensor.add_(1), False),
        (lambda data: setattr(data, "count", 5), False),
        (lambda data: setattr(data, "cache", torch.zeros(1)), False),
        (lambda data: setattr(data, "rng", np.random.default_rng(1)), False),
        (lambda data: None, False),
    ],
)
def test_a_data_set_that_remembers_is_noticed(change, seen):
    """Containers of objects are; numbers, tensors, containers of such and generators are kept anyway."""

    class Data(Dataset):
        def __init__(self):
            self.items, self.tensor = [torch.ones(1)], torch.zeros(300_000)
            self.cache, self.count, self.rng, self.objects = None, 0, None, [SimpleObject(1)]

    data = Data()
    watch = Memory(data, saved=True)
    watch.used()
    change(data)
    watch.used()
    assert watch.look() is seen


def test_what_the_first_use_makes_is_no_memory():
    """A file that is opened at the first read, say."""
    data = Mixes(X, Y)
    watch = Memory(data, saved=False)
    data.file = object()
    watch.used()
    watch.used()
    assert not watch.look()


def test_attributes_that_changed_are_put_back():
    """What changed is state; what didn't is configuration and stays as the script has it."""
    data = Mixes(X, Y)
    before = memory.outline(data)
    data.seen.append(3)
    state, missing = memory.changed(data, before)
    assert (state, missing) == ({"seen": {"value": [3]}}, {})
    other = Mixes(X, Y)
    memory.put_back(other, state, memory.outline(other))
    assert other.seen == [3]
    assert other.seen is not state["seen"]["value"]


def test_a_list_within_a_constant_is_looked_into():
    """A tuple never changes, but what it holds may."""
    data = Mixes(X, Y)
    data.seen = [("a", [1]), ("b", [2])]
    before = memory.outline(data)
    data.seen[0][1].append(3)
    state, missing = memory.changed(data, before)
    assert (state, missing) == ({"seen": {"value": [("a", [1, 3]), ("b", [2])]}}, {})


def test_a_list_of_objects_has_its_order_back():
    """And each object its attributes; objects that only training made can't come back, and are named."""
    data, other = Mixes(X, Y), Mixes(X, Y)
    for one in (data, other):
        one.parts = [SimpleObject(number) for number in range(5)]
    before = memory.outline(data)
    data.parts.reverse()
    data.parts[0].value = 40
    state, missing = memory.changed(data, before)
    assert not missing
    memory.put_back(other, state, memory.outline(other))
    assert [one.value for one in other.parts] == [40, 3, 2, 1, 0]
    data.parts.append(SimpleObject(6))
    assert memory.changed(data, before)[1].keys() == {"parts"}


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.seen.reverse(),
        lambda data: data.table["b"].append(2),
        lambda data: data.arrays["a"].fill(5),
        lambda data: setattr(data, "seen", data.seen[::2]),
        lambda data: data.pairs[1].append(1),
        lambda data: data.big.__setitem__(7, 1),
        lambda data: setattr(data, "flag", -2),
    ],
)
def test_attributes_of_any_depth_are_put_back(change):
    """Lists within lists, dicts of arrays, records: whatever is made of numbers, texts and arrays."""

    def made():
        data = Mixes(X, Y)
        data.seen, data.table, data.flag = [object, "x", 300, 400][1:], {"a": [], "b": [1]}, -1
        data.arrays, data.pairs, data.big = {"a": np.zeros(3)}, [[1, 2], [3]], list(range(5000))
        data.same = data.seen
        return data

    data, other = made(), made()
    before = memory.outline(data)
    assert memory.changed(data, before) == ({}, {})
    change(data)
    state, missing = memory.changed(data, before)
    assert state
    assert not missing
    memory.put_back(other, decode(*encoded(state)), memory.outline(other))
    for name in ("seen", "table", "flag", "pairs", "big"):
        assert getattr(other, name) == getattr(data, name)
    assert other.arrays["a"].tolist() == data.arrays["a"].tolist()


def encoded(tree):
    found = encode(tree)
    return found.structure, found.tensors


def test_a_shuffled_list_is_saved_as_an_order():
    """Of objects of any kind; the new process has them, too."""
    data, other = Mixes(X, Y), Mixes(X, Y)
    data.seen, other.seen = [["a"] * 3], [["a"] * 3]
    for one in (data, other):
        one.seen = [(f"file {number}", number) for number in range(6)]
    before = memory.outline(data)
    random.shuffle(data.seen)
    state, _ = memory.changed(data, before)
    assert sorted(state["seen"]["picked"].tolist()) == list(range(6))
    memory.put_back(other, state, memory.outline(other))
    assert other.seen == data.seen


def test_a_list_that_got_shorter_is_left_as_it_is(caplog):
    """And the user is told."""
    data, other = Mixes(X, Y), Mixes(X, Y)
    data.seen, other.seen = [1000, 2000, 3000], [1000]
    before = memory.outline(data)
    data.seen.reverse()
    memory.put_back(other, memory.changed(data, before)[0], memory.outline(other))
    assert other.seen == [1000]
    assert "more items when the snapshot was taken" in caplog.text


def test_a_cache_is_no_state():
    """What it has would be loaded alike again; a small table of numbers is state all the same."""
    data = Mixes(X, Y)
    data.cache, data.slots, data.table = {}, [None] * 3, {}
    before = memory.outline(data)
    data.cache[3], data.slots[1], data.table[1] = torch.ones(3), np.ones(2), 0.5
    assert memory.changed(data, before) == ({"table": {"value": {1: 0.5}}}, {})


def test_what_is_too_large_is_named(monkeypatch):
    """Rather than written with every snapshot."""
    monkeypatch.setattr(memory, "LARGEST", 100)
    data = Mixes(X, Y)
    data.table = np.zeros(100)
    before = memory.outline(data)
    data.table += 1
    found, missing = memory.changed(data, before)
    assert found == {}
    assert "too many to be saved each time" in missing["table"]


def test_a_stamped_batch_can_be_pinned():
    """torch's pinning thread reaches the batch inside the stamp."""

    class Part:
        def pin_memory(self):
            return "pinned"

    stamped = pin_memory(Stamped({"x": Part()}, Stamp(0, None, None, "")))
    assert type(stamped) is Stamped
    assert stamped.batch == {"x": "pinned"}
