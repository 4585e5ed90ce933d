"""What is fed with broken input: every reader of a file that somebody else may have written.

For each `Target`: intact inputs, and a function that reads one and raises nothing but errors of ours; what it reads all
the same must be right.
"""

from __future__ import annotations

import copy
import io
import json
import random
import shutil
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from safetensors.numpy import save

from ckpt_callbacks import CheckpointError, ConfigurationError, CorruptSnapshotError, Run, resume
from ckpt_callbacks.cli.explain import explain
from ckpt_callbacks.cli.ls import ls
from ckpt_callbacks.cli.prune import prune
from ckpt_callbacks.cli.show import show
from ckpt_callbacks.engine import Past, Progress, parse_rules, parse_trigger
from ckpt_callbacks.resume import ResumeReport
from ckpt_callbacks.state import tree
from ckpt_callbacks.state.tensors.safetensors_file import open_bytes
from ckpt_callbacks.state.tensors.tensor import HostTensor
from ckpt_callbacks.store import FileInfo, LocalStore, Manifest
from ckpt_callbacks.store.manifest import digest_of

__all__ = ["TARGETS", "Target", "mutated", "restructured"]

ODD = (
    *(None, True, 0, -1, 7, 2**53 - 1, 2**53, 2**63, 10**400, 0.5, -1e308, 5e-324, "", "x", "nan", "inf", "-inf"),
    *(
        [],
        {},
        [1],
        [[]],
        [[0, 2**53 - 1]],
        {"metric": 5},
        {"metric": "loss", "mode": "sideways"},
        {"git": 5},
        {"a": {}},
    ),
    *(
        "9999-12-31T23:59:59-12:00",
        "0001-01-01T00:00:00+12:00",
        "0001-01-01T00:00:00+00:00",
        "../x",
        "\x1b[2J",
        "\ud800",
    ),
    *("keep_last(10**9)", "keep_tiers({'1s': 10**9})", "keep_log_spaced(base=1.0000000001)", "keep_within('1 B')"),
)
"""Values that may stand where others were expected."""

EXPRESSIONS = (
    *("-" * 900 + "1", "-" * 9000 + "1", "not " * 900 + "1", "a" + ".a" * 900, "(" * 90 + ")" * 90, "[" * 900),
    *("|".join(["on_end()"] * 1000), "&".join(["on_end()"] * 400), "f(" * 60, "every('9e999s')"),
    *("when(" * 1500, "a," * 4000, "keep_last(2)," * 700, "x" * 20_000, "keep_last(2" + "0" * 4000 + ")"),
    *("keep_log_spaced(1e200)", "keep_log_spaced(1.0000000000000002)", "keep_log_spaced(1" + "0" * 400 + ")"),
    *(f"keep_within('{'9' * 5000} GB')", f"keep_within(1{'0' * 4000})", "keep_tiers({5e-324: 3})"),
    *(f"keep_best(1, Monitor('x', 'min', 1{'0' * 400}))", "keep_best(1, Monitor('x', 'min', 1e308, True))"),
    *("every_steps(" + "9" * 4000 + ")", "keep_tiers({1e300: 1})", "keep_last(**{'n': 2})"),
)
"""Rules and triggers that are too deep, too long, or count too far."""

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
    AssertionError, if it misreads. ``mutate`` breaks an input; one that costs ``cost`` times as much as others is tried
    as many times less.
    """

    intact: tuple[bytes, ...]
    read: Callable[[bytes], bool]
    mutate: Callable[[bytes, random.Random], bytes] = field(default_factory=lambda: mutated)
    cost: int = 1


def restructured(data: bytes, rng: random.Random) -> bytes:
    """JSON that is JSON still: some members, at any depth, are others, gone, or new."""
    document = json.loads(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        inside = document
        while True:
            keys = list(inside) if isinstance(inside, dict) else list(range(len(inside)))
            key = rng.choice(keys) if keys and rng.random() < 0.95 else None
            if key is None or not isinstance(inside[key], (dict, list)) or rng.random() < 0.4:
                break
            inside = inside[key]
        if key is not None and rng.random() < 0.1:
            del inside[key]
        elif isinstance(inside, dict):
            inside[rng.choice(("x", "best", "git", "mode")) if key is None else key] = copy.deepcopy(rng.choice(ODD))
        elif key is None:
            inside.append(copy.deepcopy(rng.choice(ODD)))
        else:
            inside[key] = copy.deepcopy(rng.choice(ODD))
    return json.dumps(document).encode()


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


MODEL = {"model.safetensors": [save({"w": np.ones((2, 3), np.float32)})], "state.json": [b'{"weights":{}}']}
MANIFEST = Manifest(
    "000000012-abcdef",
    7,
    Progress(12, 1, 2, 12),
    "full",
    datetime(2026, 1, 2, tzinfo=UTC),
    {name: FileInfo(len(chunks[0]), digest_of(chunks[0])) for name, chunks in MODEL.items()},
    metrics={"val_loss": float("nan"), "acc": 0.5},
    reasons=("every_steps(3)",),
    abandoned=((2, 5),),
    policy={"save": "every_steps(3)", "keep": ["keep_last(2)"]},
    past={"seen": {"step": 12, "epoch": 1, "batch": 2, "batches": 12}, "elapsed": 1.0, "best": {"val_loss:min": 0.5}},
    framework="none",
    versions={"python": "3.11"},
    monitors=({"metric": "val_loss", "mode": "min", "min_delta": 0.0, "relative": False},),
    provenance={
        "command": ["python", "train.py"],
        "git": {"commit": "0" * 40, "branch": "main"},
        "machine": {"processor": "x", "devices": "cpu"},
    },
)


def _manifest(data: bytes) -> None:
    assert Manifest.from_bytes(data).to_bytes() == MANIFEST.to_bytes()  # its own digest finds every change


def _signed(data: bytes) -> bytes:
    head = data.rstrip().removesuffix(b"}").rstrip() + b",\n"
    return head + b'  "digest": "' + digest_of(head).encode() + b'"\n}\n'


def _signed_manifest(data: bytes) -> None:
    """A manifest that somebody made on purpose, digest and all."""
    found = Manifest.from_bytes(_signed(data))
    assert all("/" not in name and not name.startswith(".") for name in (found.id, *found.files))
    assert found.sequence >= 0
    assert found.record().size == found.size >= 0
    again = Manifest.from_bytes(found.to_bytes())
    assert (again.id, again.files, again.progress) == (found.id, found.files, found.progress)


@cache
def _run() -> tuple[TemporaryDirectory[str], LocalStore]:
    """A run with one good snapshot."""
    folder = TemporaryDirectory()
    store = LocalStore(folder.name, durability="none")
    store.open()
    store.commit(replace(MANIFEST, progress=Progress(6, 0, 6, 6)), MODEL)
    return folder, store


def policy_in_a_run(save: str, *keep: str) -> bool:
    """Whether a manifest with such a policy is accepted; people can look at the run in either case."""
    document = json.loads(UNSIGNED)
    return _ours(_in_a_run)(json.dumps({**document, "policy": {"save": save, "keep": keep}}).encode())


def _in_a_run(data: bytes) -> None:
    """A manifest that somebody made on purpose, in a run: whatever it says, people can look at the run, training finds
    what to carry on from, and saves; and if it is accepted, all that looks at it alone works as well."""
    _, store = _run()
    (first,) = {one.id for one in store.manifests()} - {MANIFEST.id}
    directory = store.path(MANIFEST.id)
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    for name, chunks in MODEL.items():
        (directory / name).write_bytes(b"".join(chunks))
    (directory / "manifest.json").write_bytes(_signed(data))
    known = MANIFEST.id in {one.id for one in store.manifests()}
    with redirect_stdout(io.StringIO()) as said, redirect_stderr(io.StringIO()):
        for as_json in (False, True):
            ls(str(store.root), as_json)
            explain(str(store.root), as_json)
            with suppress(ConfigurationError):  # what nobody can tell here is said, and nothing dropped
                prune(str(store.root), None, dry_run=True, as_json=as_json)
            for id in (first, MANIFEST.id) if known else (first,):
                show(f"{store.root}@{id}", as_json)
        choice = resume.choose(store, "auto", reads=("none",), load=None, first=True)
    assert said.getvalue().replace("\n", "").isprintable()
    assert choice is not None
    resume.differences(choice.snapshot, {"devices": "cuda"})
    ResumeReport(choice.snapshot, 0, 0, 0).likely_causes("x")
    past = resume.past_of(store, choice, resume.abandoned(store, choice), Run(store.root).monitors)
    assert Past.from_dict(past.as_dict()) == past
    shutil.rmtree(directory, ignore_errors=True)
    for path in store.aside():
        shutil.rmtree(path)
    if not known:
        raise CorruptSnapshotError("refused, as it should be")


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
    "structured manifest": Target((UNSIGNED.encode(),), _ours(_signed_manifest), restructured),
    "manifest in a run": Target((UNSIGNED.encode(),), _ours(_in_a_run), restructured, cost=20),
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
