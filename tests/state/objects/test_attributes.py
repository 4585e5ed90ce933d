"""What training changed in plain attributes is found, stored, and put back into the objects of a new process."""

from __future__ import annotations

import copy
import dataclasses
import enum
import itertools
import time
from collections import OrderedDict, defaultdict, deque, namedtuple

import numpy as np
import pytest
import torch
from torch import nn

from ckpt_callbacks.state import decode, encode
from ckpt_callbacks.state.objects import attributes, parts, tokens
from ckpt_callbacks.state.objects.attributes import Attributes
from ckpt_callbacks.state.objects.tokens import MAX_ITEMS

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


class Slots:
    """State in slots; what is private has another name than in the source."""

    __slots__ = ("__hidden", "count", "unset")

    def __init__(self):
        self.count, self.__hidden = 0, 0

    def write(self):
        self.count, self.__hidden, self.unset = 2, 3, 4

    def __getattr__(self, name):
        raise RuntimeError("the user's code runs")

    def read(self):
        return self.count, self.__hidden, self.unset


@dataclasses.dataclass(slots=True, frozen=True)
class Frozen:
    count: int = 0


def refuse(*args, **kwargs):
    raise RuntimeError("the user's code runs")


def hostile(base):
    """A subclass all of whose methods that could read or write its content refuse."""
    names = {"__getitem__", "__setitem__", "__iter__", "__len__", "__eq__", "__contains__", "__bool__", "__reversed__"}
    methods = {"append", "extend", "clear", "update", "items", "keys", "values", "get", "pop", "add", "copy", "insert"}
    return type(f"Hostile{base.__name__}", (base,), {name: refuse for name in names | methods if hasattr(base, name)})


def plain(container):
    """The content of a container, by the methods of the builtin class."""
    base = next(kind for kind in (OrderedDict, *BASES) if isinstance(container, kind))
    if issubclass(base, dict):
        return {key: dict.__getitem__(container, key) for key in base.__iter__(container)}
    return [*base.__iter__(container)]


BASES = (list, dict, set, deque)
HOSTILE = {base: hostile(base) for base in (OrderedDict, *BASES)}


def watch(owner) -> Attributes:
    return Attributes({"owner": owner}, lambda holder, name: True, list)


def through_a_file(saved):
    """As a snapshot gives it back."""
    encoded = encode(saved)
    return decode(encoded.structure, encoded.tensors)


def carried_over(change, **more) -> Owner:
    """An object of a new process, after what ``change`` did to that of an old one; ``more`` makes more attributes."""
    old, new = Owner(), Owner()
    for name, make in more.items():
        setattr(old, name, make())
        setattr(new, name, make())
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


def test_types_that_a_module_lends():
    """Nothing of these types was in the containers when training began; their classes are in the module of Owner's."""

    def change(owner):
        owner.history += [Phase.COLD, (Phase.WARM,), {Phase.WARM: Pair(1, Phase.COLD)}]
        owner.queue.append(Pair([Pair(1, 2)], None))

    owner = carried_over(change)
    assert owner.history == [Phase.COLD, (Phase.WARM,), {Phase.WARM: Pair(1, Phase.COLD)}]
    pair = owner.queue[0]
    assert type(pair) is type(pair.one[0]) is type(owner.history[2][Phase.WARM]) is Pair


def test_members_of_an_enumeration_that_no_module_lends_are_named():
    """Once for each attribute."""
    owner, local = Owner(), enum.Enum("Local", "A B")
    watched = watch(owner)
    owner.history += [local.A, local.B]
    saved, missing = watched.capture()
    assert list(missing) == ["owner.history"]
    assert watch(owner).put_back(through_a_file(saved)) == []
    assert owner.history == [1, 2]


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
    owner.best = [Meter() for _ in range(20)]
    assert list(watched.capture()[1]) == ["owner.best"]  # one entry, and not twenty
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
    monkeypatch.setattr(tokens, "encode", lambda value, **options: encoded.append(id(value)) or encode(value))
    owner = Owner()
    owner.documents = [list(range(1000)) for _ in range(5000)]
    assert watch(owner).capture() == ([], {})
    assert id(owner.nested) in encoded
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


def test_a_copy_made_while_training_is_named():
    """`if self.model is None: self.model = deepcopy(net)`: a new process has no such module to put it into."""
    owner = Owner()
    watched = watch(owner)
    owner.best = {"ema": copy.deepcopy(owner.teacher[0])}
    saved, missing = watched.capture()
    assert saved == []
    assert missing == {"owner.best": "it was made while training, or holds what was: make it in __init__ or setup"}


def test_an_object_of_another_class_is_named():
    """Its attributes would not fit into the one that a new process makes."""
    owner = Owner()
    watched = watch(owner)
    owner.meter, owner.meters["x"] = Slots(), Meter()
    assert list(watched.capture()[1]) == ["owner.meter"]


def test_dataclasses_of_installed_packages():
    """They stay what they are, and are filled."""

    def change(owner):
        owner.report.nodeid = "changed"

    kind = dataclasses.make_dataclass("Report", ["nodeid"])
    kind.__module__ = "pytest"
    owner = carried_over(change, report=lambda: kind(""))
    assert (type(owner.report), owner.report.nodeid) == (kind, "changed")


def test_parameters_of_a_copy_stay_what_they_are():
    """An optimizer may hold them."""
    old, new = Owner(), Owner()
    watched, parameters = watch(old), [*new.teacher[0].parameters()]
    with torch.no_grad():
        old.teacher[0].weight.fill_(3)
    watch(new).put_back(through_a_file(watched.capture()[0]))
    assert [id(one) for one in new.teacher[0].parameters()] == [*map(id, parameters)]
    assert torch.equal(new.teacher[0].weight, old.teacher[0].weight)


def test_what_hooks_make_at_the_start_of_training():
    """A new process has it as well, but made of what was restored: all of it is state, changed or not."""

    def start(owner):
        owner.anchor = {"net": copy.deepcopy(owner.teacher[0]), "meter": Meter()}

    old, new = Owner(), Owner()
    watched = watch(old)
    start(old)
    watched.settle()
    with torch.no_grad():
        new.teacher[0].weight.fill_(5)
    start(new)
    saved, missing = watched.capture()
    assert missing == {}
    assert watch(new).put_back(through_a_file(saved)) == []
    assert torch.equal(new.anchor["net"].weight, old.anchor["net"].weight)
    assert isinstance(new.anchor["net"].weight, nn.Parameter)


def test_variables_that_a_function_encloses():
    """Numbers are set, containers filled; what is code or an iterator in there is left alone and not named."""

    def scheduled():
        steps, seen, ticks = 0, [], itertools.count()

        def rate():
            nonlocal steps
            steps += 1
            seen.append(steps)
            next(ticks)
            return steps, len(seen)

        return rate

    old, new = Owner(), Owner()
    old.rate, new.rate = scheduled(), scheduled()
    watched = watch(old)
    assert [old.rate() for _ in range(3)][-1] == (3, 3)
    saved, missing = watched.capture()
    assert missing == {}
    assert watch(new).put_back(through_a_file(saved)) == []
    assert new.rate() == (4, 4)


def test_tensors_come_back_to_their_device():
    """Also those that no live one tells it."""
    assert parts.device_of({"a": [torch.empty(1, device="meta")]}) == "meta"
    assert parts.device_of([torch.zeros(1), np.zeros(1), 1]) is None
    assert parts.moved({"a": (torch.zeros(1),)}, "meta")["a"][0].device.type == "meta"


def test_what_has_no_tensors_is_no_false_alarm():
    """An activation made while training is nothing that a resume could lack, nor is an installed package's object."""
    owner = Owner()
    watched = watch(owner)
    owner.best, owner.request = nn.ReLU(), pytest.MonkeyPatch()
    assert watched.capture() == ([], {})


def test_slots():
    def change(owner):
        owner.slots.write()
        object.__setattr__(owner.frozen, "count", 5)

    owner = carried_over(change, slots=Slots, frozen=Frozen)
    assert (owner.slots.read(), owner.frozen) == ((2, 3, 4), Frozen(5))


@pytest.mark.parametrize("base", HOSTILE, ids=lambda base: base.__name__)
def test_subclasses_of_containers(base):
    """Content and attributes come back in the object that is there; no method of the user's class runs."""
    content = {1: 2, 3: [4]} if issubclass(base, dict) else (1, 3)

    def change(owner):
        for item in content.items() if issubclass(base, dict) else content:
            {list: list.append, deque: deque.append, set: set.add}.get(
                base, lambda own, pair: base.__setitem__(own, *pair)
            )(owner.own, item)
        owner.own.note = "changed"

    owner = carried_over(change, own=HOSTILE[base])
    assert type(owner.own) is HOSTILE[base]
    assert (plain(owner.own), owner.own.note) == (plain(base(content)), "changed")


def test_objects_in_subclasses_of_containers():
    def change(owner):
        owner.named["a"].count = 3
        plain(owner.listed)[0].total = 0.5
        owner.counts["x"] = 2

    owner = carried_over(
        change,
        named=lambda: OrderedDict(a=Meter()),
        listed=lambda: HOSTILE[list]([Meter()]),
        counts=lambda: defaultdict(lambda: 0),
    )
    assert (owner.named["a"].count, plain(owner.listed)[0].total, owner.counts["x"]) == (3, 0.5, 2)
    assert owner.counts["none"] == 0


def test_a_container_of_the_user_made_while_training_is_named():
    owner = Owner()
    watched = watch(owner)
    owner.best = HOSTILE[dict](a=1)
    assert "make it in __init__ or setup" in watched.capture()[1]["owner.best"]


def test_a_container_may_be_watched_itself():
    """Hyperparameters, say: each is state or configuration for itself."""
    old, new = HOSTILE[dict](a=1, lr=0.1), HOSTILE[dict](a=1, lr=0.2, new=None)
    watched = Attributes({"hparams": old}, lambda holder, name: True, list)
    assert watched.capture() == ([], {})
    dict.update(old, a=3)
    assert Attributes({"hparams": new}, lambda holder, name: True, list).put_back(watched.capture()[0]) == []
    assert plain(new) == {"a": 3, "lr": 0.2, "new": None}


def alias_in_dict(owner):
    owner.history.append(1)
    owner.view["x"].append(2)


def alias_made(owner):
    owner.best = owner.history
    owner.history.append(1)


def alias_of_an_object(owner):
    owner.best = owner.meter
    owner.meter.count = 7


def alias_ended(owner):
    owner.view["x"] = [5]


@pytest.mark.parametrize("change", [alias_in_dict, alias_made, alias_of_an_object, alias_ended])
def test_what_two_attributes_share(change):
    """They share it again, and what they share no more is apart."""
    old, new = Owner(), Owner()
    for one in (old, new):
        one.view = {"x": one.history}
    watched = watch(old)
    change(old)
    saved, missing = watched.capture()
    assert (missing, watch(new).put_back(through_a_file(saved))) == ({}, [])
    for one in (old, new):
        one.shares = one.view["x"] is one.history, one.best is one.history, one.best is one.meter
    assert (new.shares, new.history, new.view, new.meter.count) == (old.shares, old.history, old.view, old.meter.count)


def test_what_was_taken_out_of_a_container_of_objects():
    """The items are looked at one by one there; that some went, and their order, is state as well."""

    def change(owner):
        del owner.meters["a"]
        owner.meters["b"] = owner.meters.pop("b")
        owner.row.pop()

    owner = carried_over(
        change,
        meters=lambda: {"a": Meter(), "b": Meter(), "c": Meter()},
        row=lambda: [Meter(), Meter()],
    )
    assert (list(owner.meters), len(owner.row)) == (["c", "b"], 1)


@pytest.mark.parametrize(
    "make", [lambda: np.zeros((500, 1000)), lambda: torch.zeros(500, 1000)], ids=["numpy", "torch"]
)
def test_one_number_of_a_large_array(make):
    """Any one, written past torch's own count."""

    def change(owner):
        memory = owner.large if isinstance(owner.large, np.ndarray) else owner.large.numpy()
        memory[123, 457] = 1

    owner = carried_over(change, large=make)
    assert float(owner.large[123, 457]) == float(owner.large.sum()) == 1


def test_a_large_array_of_objects():
    owner = Owner()
    owner.large = np.full(200_000, None)
    assert watch(owner).capture() == ([], {})


def test_many_small_arrays_cost_little():
    """What is written to one of them is seen."""
    owner = Owner()
    owner.bank = [np.full(6, float(number)) for number in range(9000)]
    watched = watch(owner)
    began = time.perf_counter()
    assert watched.capture() == ([], {})
    assert time.perf_counter() - began < 0.3  # about 0.02; a second, if each is encoded
    owner.bank[8000][3] = 0
    assert [one["key"] for one in watched.capture()[0]] == ["bank"]


def test_what_lies_behind_many_objects_is_named(monkeypatch):
    monkeypatch.setattr(attributes, "MAX_OBJECTS", 10)
    owner = Owner()
    owner.many = [Meter() for _ in range(20)]
    watched = watch(owner)
    owner.meter.count = 3
    saved, missing = watched.capture()
    assert [one["in"] for one in saved] == ["owner.meter"]
    assert len(missing) == 1
