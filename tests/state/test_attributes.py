"""What training changed in plain attributes is found, stored, and put back into the objects of a new process."""

from __future__ import annotations

import enum
from collections import deque, namedtuple

import numpy as np
import pytest
import torch
from torch import nn

from ckpt_callbacks.state import attributes, decode, encode
from ckpt_callbacks.state.attributes import MAX_ITEMS, Attributes

Pair = namedtuple("Pair", "one two")


class Phase(enum.Enum):
    WARM, COLD = 1, 2


class Meter:
    """A user's helper without a `state_dict`."""

    def __init__(self):
        self.total, self.count = 0.0, 0


class Owner:
    """A user's object, as a script makes it anew in each process."""

    def __init__(self):
        self.patience, self.steps, self.history, self.best = 3, 0, [], None
        self.nested, self.phase, self.pair = {"a": [1, {"b": 2}]}, Phase.WARM, Pair(1, 2)
        self.meter, self.meters = Meter(), {"x": Meter()}
        self.array, self.tensor, self.queue = np.zeros(3), torch.zeros(3), deque(maxlen=2)
        self.teacher = [nn.Linear(2, 2)]


def watch(owner) -> Attributes:
    return Attributes({"owner": owner}, lambda holder, name: True, list)


def through_a_file(saved):
    """As a snapshot gives it back."""
    encoded = encode(saved)
    return decode(encoded.structure, encoded.tensors)


def carried_over(change) -> Owner:
    """An object of a new process, after what ``change`` did to that of an old one."""
    old, new = Owner(), Owner()
    watched = watch(old)
    change(old)
    saved, missing = watched.capture()
    assert missing == {}
    assert watch(new).put_back(through_a_file(saved)) == []
    return new


def counts(owner):
    owner.steps, owner.best = 7, 0.25
    owner.history.append(1.5)
    owner.nested["a"][1]["b"] = 5


def test_plain_values():
    owner = carried_over(counts)
    assert (owner.steps, owner.best, owner.history, owner.nested) == (7, 0.25, [1.5], {"a": [1, {"b": 5}]})


def test_objects_of_the_user_within():
    def change(owner):
        owner.meter.total, owner.meter.count = 2.5, 3
        owner.meters["x"].count = 9

    owner = carried_over(change)
    assert (owner.meter.total, owner.meter.count, owner.meters["x"].count) == (2.5, 3, 9)


def test_types_that_the_live_object_lends():
    def change(owner):
        owner.phase, owner.pair = Phase.COLD, Pair(3, 4)
        owner.queue.extend([1, 2, 3])

    owner = carried_over(change)
    assert (owner.phase, owner.pair) == (Phase.COLD, Pair(3, 4))
    assert owner.queue == deque([2, 3], maxlen=2)
    assert owner.queue.maxlen == 2


def test_tensors_and_modules_that_no_tree_holds():
    def change(owner):
        owner.array += 1
        owner.tensor.add_(2)
        with torch.no_grad():
            owner.teacher[0].weight.fill_(3)

    owner = carried_over(change)
    assert owner.array.tolist() == [1, 1, 1]
    assert owner.tensor.tolist() == [2, 2, 2]
    assert bool((owner.teacher[0].weight == 3).all())


def test_what_others_refer_to_is_filled_and_not_replaced():
    old, new = Owner(), Owner()
    watched, reference, tensor = watch(old), new.history, new.tensor
    counts(old)
    old.tensor.add_(1)
    watch(new).put_back(through_a_file(watched.capture()[0]))
    assert reference is new.history
    assert tensor is new.tensor
    assert reference == [1.5]


def test_what_did_not_change_is_configuration():
    """A patience that the user raised before resuming stays raised."""
    old, new = Owner(), Owner()
    watched = watch(old)
    old.steps = 4
    new.patience = 10
    watch(new).put_back(through_a_file(watched.capture()[0]))
    assert (new.patience, new.steps) == (10, 4)


def test_what_can_not_be_stored_is_named():
    owner = Owner()
    watched = watch(owner)
    owner.best = Meter()  # an object that only training makes has no place in a new process
    owner.best.count = 3
    _, missing = watched.capture()
    assert list(missing) == ["owner.best"]
    assert "make it in __init__ or setup" in missing["owner.best"]


@pytest.mark.parametrize("iterator", [iter([1, 2]), (n for n in range(3)), zip([1], [2], strict=True)])
def test_iterators_are_named_from_the_start(iterator):
    """How far one got can't be seen, let alone be stored."""
    owner = Owner()
    owner.stream = iterator
    saved, missing = watch(owner).capture()
    assert (saved, list(missing)) == ([], ["owner.stream"])


def test_what_has_no_place_any_more_is_told():
    old, new = Owner(), Owner()
    watched = watch(old)
    old.meter.count = 4
    del new.meter
    assert watch(new).put_back(through_a_file(watched.capture()[0])) == ["owner.meter.count"]


def grow(owner):
    owner.samples.append(1)


def turn(owner):
    owner.samples.rotate(1)


def replace_one(owner):
    owner.samples[MAX_ITEMS] = "new"


@pytest.mark.parametrize(
    ("kind", "change"), [(list, grow), (list, replace_one), (deque, grow), (deque, turn), (deque, replace_one)]
)
def test_large_collections(kind, change):
    """A replay buffer that is full changes, too."""
    old, new = Owner(), Owner()
    for owner in (old, new):
        owner.samples = kind(range(2 * MAX_ITEMS))
    watched = watch(old)
    assert watched.capture() == ([], {})
    change(old)
    watch(new).put_back(through_a_file(watched.capture()[0]))
    assert new.samples == old.samples


def test_data_in_an_attribute_costs_little(monkeypatch):
    """Five million numbers are not looked at one by one at every save."""
    encoded = []
    monkeypatch.setattr(attributes, "encode", lambda value, **options: encoded.append(id(value)) or encode(value))
    owner = Owner()
    owner.documents = [list(range(1000)) for _ in range(5000)]
    assert watch(owner).capture() == ([], {})
    assert id(owner.history) in encoded
    assert not {id(owner.documents), *map(id, owner.documents)} & set(encoded)


def test_a_large_tensor_that_is_written_to():
    owner, other = Owner(), Owner()
    for one in (owner, other):
        one.queue = torch.zeros(1 << 19)
    watched = watch(owner)
    owner.queue[12345] = 1.0
    watch(other).put_back(through_a_file(watched.capture()[0]))
    assert torch.equal(owner.queue, other.queue)


def test_a_collection_that_holds_itself():
    owner = Owner()
    owner.nested["self"] = owner.nested
    assert watch(owner).capture()[0] == []
