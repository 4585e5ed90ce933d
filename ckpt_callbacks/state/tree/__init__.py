"""A tree of plain values and tensors <-> a JSON structure and named tensors. Without pickle, bit for bit.

What JSON can say exactly is said in JSON: None, booleans, strings, integers below 2**53, finite floats, lists, and
dicts whose keys are strings that don't start with ``$``. Everything else is an object whose ``$`` names what it is,
``{"$": "tuple", "items": [...]}``. Types come from a fixed list or from ``register_codec``; a file never names anything
to import.

Three kinds of values are stored by their parts and get their type back only from the live object at the same place
(``like``): without one, a namedtuple comes back as one of the same name and fields that is made anew, a dataclass as a
dict, an enum member as its value.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ckpt_callbacks.errors import CorruptSnapshotError, UnstorableError
from ckpt_callbacks.limits import reckoned, too_much
from ckpt_callbacks.state.tensors.shelf import shelve
from ckpt_callbacks.state.tensors.tensor import HostTensor, Source
from ckpt_callbacks.state.tree.decoding import Checker, Decoder
from ckpt_callbacks.state.tree.encoding import Encoder
from ckpt_callbacks.state.tree.grammar import OnFlattened, OnUnstorable

__all__ = ["Encoded", "Plan", "check", "decode", "encode", "from_json", "plan", "to_json"]


@dataclass(frozen=True, slots=True)
class Encoded:
    """A tree in its storable form: ``structure`` is plain JSON and refers to ``tensors`` by name."""

    structure: Any
    tensors: dict[str, HostTensor]


@dataclass(frozen=True, slots=True)
class Plan:
    """A tree whose structure is settled and whose tensors' bytes are still to be fetched, each from its ``Source``.

    ``flattens`` tells whether something in it comes back in a plainer type, unless ``decode`` finds its like.
    """

    structure: Any
    sources: dict[str, Source]
    flattens: bool = False

    def fetch(self, *, copy: bool = True) -> Encoded:
        """The tensors' bytes in host memory; without ``copy`` borrowed from the live tensors where that is possible."""
        return Encoded(self.structure, {name: source.host(copy=copy) for name, source in self.sources.items()})


def encode(
    tree: object, *, copy: bool = True, views: bool = True, on_unstorable: OnUnstorable | None = None
) -> Encoded:
    """Split ``tree`` into a JSON structure and named tensors.

    ``copy=False`` borrows the tensors' memory where it can: good until anybody writes to them. ``on_unstorable(path,
    value, reason)`` may return something else to store in place of a value that can't be, or raise; without it all such
    values are collected.

    UnstorableError: the tree holds values that are neither tensors nor plain data, with the path of each.
    """
    return plan(tree, views=views, on_unstorable=on_unstorable).fetch(copy=copy)


def plan(tree: object, *, views: bool = True, on_unstorable: OnUnstorable | None = None) -> Plan:
    """As ``encode``, up to the point where bytes are read: for whoever lays them out in memory of their own."""
    encoder = Encoder(on_unstorable, views=views)
    structure = encoder.value(tree, "")
    if encoder.refused:
        raise UnstorableError(encoder.refused)
    return Plan(structure, shelve(list(encoder.found.values()), views=views), encoder.flattens)


def decode(
    structure: object,
    tensors: Mapping[str, HostTensor],
    *,
    like: object = None,
    copy: bool | Callable[[HostTensor], bool] = True,
    on_flattened: OnFlattened | None = None,
) -> Any:
    """The tree that was encoded: torch's tensors on the CPU, those of tensorflow and jax where these put new ones.

    ``like`` is the live object that the tree is for: where it has a namedtuple, a dataclass or an enum member at the
    same place, that one's type is used. Where it has none, a namedtuple of the same fields stands in, or plain data,
    and ``on_flattened(path, kind)`` is told of the latter. With ``copy=False``, or where ``copy``
    says so of a stored tensor, tensors lie in the memory of ``tensors``: writing to one that is mapped read-only ends
    the process. A tensor whose library can't be imported comes back as a numpy array.

    CorruptSnapshotError: the structure is not one that ``encode`` makes, or refers to a tensor that isn't there or
    differs. ConfigurationError: a codec or an element type that the tree was saved with is missing here.
    """
    must_copy = copy if callable(copy) else lambda _: copy
    return Decoder(tensors, must_copy=must_copy, on_flattened=on_flattened).value(structure, like, "")


def check(structure: object, tensors: Mapping[str, HostTensor]) -> Any:
    """Try whether ``decode`` could read it: the same errors, but no tensor is made and no codec is asked.

    Returns:
        The tree as ``decode`` gives it, with something else in the place of each tensor.
    """
    return Checker(tensors, must_copy=lambda _: False, on_flattened=None).value(structure, None, "")


def to_json(structure: object) -> bytes:
    """The structure as compact JSON text, in ASCII."""
    return json.dumps(structure, separators=(",", ":"), allow_nan=False).encode()


def from_json(text: bytes, name: str = "the structure") -> Any:
    """The structure that ``to_json`` wrote; ``name`` says where it was read.

    CorruptSnapshotError: it is no JSON, or would take more memory than any that is written.
    """
    if (excess := too_much("state.json", reckoned(text))) is not None:
        raise CorruptSnapshotError(f"{name} can't be read: {excess}.")
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise CorruptSnapshotError(f"{name} can't be parsed as JSON: {error}") from error


def _refuse_constant(word: str) -> None:
    raise ValueError(f"{word} is no JSON")
