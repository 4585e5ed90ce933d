"""What is fed with broken input: every reader of a file that somebody else may have written.

For each `Target`: intact inputs, and a function that reads one and raises nothing but errors of ours; what it reads all
the same must be right.
"""

from __future__ import annotations

import json
import random
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from ckpt_callbacks import CheckpointError
from ckpt_callbacks.engine import Progress, parse_rules, parse_trigger
from ckpt_callbacks.state import tree
from ckpt_callbacks.state.safetensors_file import open_bytes
from ckpt_callbacks.state.tensors import HostTensor
from ckpt_callbacks.store import FileInfo, Manifest
from ckpt_callbacks.store.manifest import digest_of

__all__ = ["TARGETS", "Target", "mutated"]

WORDS = [
    *(b"{", b"}", b"[", b"]", b'"', b":", b",", b"null", b"true", b"-1", b"0", b"1e999", b"NaN", b"9" * 30, b"\\ud800"),
    *(
        b'"$"',
        b'"items"',
        b'"tensor"',
        b'"ref"',
        b'"shape"',
        b'"dtype"',
        b'"view"',
        b'"strides"',
        b'"offset"',
        b'"hex"',
    ),
    *(
        b'"array"',
        b'"deque"',
        b'"maxlen"',
        b'"dict"',
        b'"enum"',
        b'"codec"',
        b'"../x"',
        b'"/dev/zero"',
        b"\x00",
        b"\xff",
    ),
    *(b"18446744073709551616", b"9223372036854775807", b"[" * 100, b"keep_last(", b"Monitor(", b" | ", b"()"),
]


@dataclass(frozen=True)
class Target:
    """A reader.

    ``intact`` are inputs that it must accept. ``read`` tells whether it accepted some; it raises nothing but
    AssertionError, if it misreads.
    """

    intact: tuple[bytes, ...]
    read: Callable[[bytes], bool]


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Some bytes changed, removed, doubled, cut off, or words of the format put among them."""
    found = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(found) + 1)
        length = rng.choice((1, 1, 2, 8, 40))
        way = rng.randrange(6)
        if way == 0 and at < len(found):
            found[at] ^= 1 << rng.randrange(8)
        elif way == 1:
            del found[at : at + length]
        elif way == 2:
            found[at:at] = found[at : at + length]
        elif way == 3 and rng.random() < 0.2:
            del found[at:]
        elif way == 4:
            found[at : at + length] = rng.choice(WORDS)
        else:
            found[at:at] = rng.choice(WORDS)
    return bytes(found)


def _ours(read: Callable[[bytes], Any]) -> Callable[[bytes], bool]:
    def guarded(data: bytes) -> bool:
        try:
            read(data)
        except CheckpointError as refusal:
            return not str(refusal)
        return True

    return guarded


MANIFEST = Manifest(
    "000000012-abcdef",
    7,
    Progress(12, 1, 2, 12),
    "full",
    datetime(2026, 1, 2, tzinfo=UTC),
    {"model.safetensors": FileInfo(10, "xxh3-128:" + "0" * 32)},
    metrics={"val_loss": float("nan"), "acc": 0.5},
    reasons=("every_steps(3)",),
    abandoned=((2, 5),),
    policy={"save": "every_steps(3)", "keep": ["keep_last(2)"]},
    past={"seen": {"step": 12, "epoch": 1, "batch": 2, "batches": 12}, "elapsed": 1.0, "best": {"val_loss:min": 0.5}},
)


def _manifest(data: bytes) -> None:
    assert Manifest.from_bytes(data).to_bytes() == MANIFEST.to_bytes()  # its own digest finds every change


def _signed_manifest(data: bytes) -> None:
    """A manifest that somebody made on purpose, digest and all."""
    head = data.rstrip().removesuffix(b"}").rstrip() + b",\n"
    signed = head + b'  "digest": "' + digest_of(head).encode() + b'"\n}\n'
    found = Manifest.from_bytes(signed)
    assert all("/" not in name and not name.startswith(".") for name in (found.id, *found.files))
    assert found.sequence >= 0
    assert found.record().size == found.size >= 0
    again = Manifest.from_bytes(found.to_bytes())
    assert (again.id, again.files, again.progress) == (found.id, found.files, found.progress)


TENSORS = {"a": HostTensor("F32", (2, 3), np.arange(24, dtype=np.uint8))}
TREE = tree.to_json(
    tree.encode(
        {
            "plain": [1, 0.5, None, True, "text", {"nested": {}}],
            "odd": {1: (2, 3), "set": {1, 2}, "big": 2**80, "inf": float("inf"), "c": 1j, "b": b"bytes"},
            "ordered": OrderedDict(a=1),
            "queue": deque([1], maxlen=3),
            "when": datetime(2026, 1, 2, tzinfo=UTC),
            "path": Path("x/y"),
            "scalar": np.float32(1.5),
        }
    ).structure
)
TENSOR_TREE = (
    b'{"t":{"$":"tensor","lib":"numpy","dtype":"float32","shape":[2,3],"ref":"a"},'
    b'"v":{"$":"tensor","lib":"numpy","dtype":"float32","shape":[2],"ref":"a","view":{"offset":4,"strides":[8]}}}'
)


def _tree(data: bytes) -> None:
    tree.decode(tree.from_json(data), TENSORS)


def _safetensors(data: bytes) -> None:
    found = open_bytes(np.frombuffer(data, np.uint8), Path("model.safetensors"))
    assert sum(tensor.nbytes for tensor in found.values()) <= len(data)


def _expression(data: bytes) -> bool:
    text = data.decode(errors="replace")
    return _ours(lambda _: parse_rules(text))(data) or _ours(lambda _: parse_trigger(text))(data)


UNSIGNED = json.dumps({name: value for name, value in json.loads(MANIFEST.to_bytes()).items() if name != "digest"})
TARGETS = {
    "manifest": Target((MANIFEST.to_bytes(),), _ours(_manifest)),
    "signed manifest": Target((UNSIGNED.encode(),), _ours(_signed_manifest)),
    "tree": Target((TREE, TENSOR_TREE), _ours(_tree)),
    "safetensors": Target(
        (save({"w": np.ones((2, 3), np.float32), "i": np.arange(4)}, {"aliases": "{}"}), save({})), _ours(_safetensors)
    ),
    "expression": Target(
        (
            b"keep_last(2), keep_best(1, 'val_loss'), keep_tiers({'1h': 3})",
            b"every_steps(3) | on_best(Monitor('x', 'min'))",
        ),
        _expression,
    ),
}
