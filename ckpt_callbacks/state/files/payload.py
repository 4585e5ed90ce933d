"""The files of a snapshot, the manifest aside: what they are called, and what they hold.

``model.safetensors``  the weights, under the framework's own names
``state.safetensors``  every other tensor
``state.json``         the tree of both: plain values, and references to the tensors

Of either of the first two there may be several, numbered: see `shards`.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ckpt_callbacks.door import IrregularError, reading
from ckpt_callbacks.errors import ConfigurationError, CorruptSnapshotError, UnreachableError
from ckpt_callbacks.limits import too_large
from ckpt_callbacks.state import tree
from ckpt_callbacks.state.files.shards import pattern_of
from ckpt_callbacks.state.memory.pages import LARGE
from ckpt_callbacks.state.tensors.safetensors_file import ALIGNMENT, SafetensorsFile, open_bytes, open_file
from ckpt_callbacks.state.tensors.tensor import HostTensor

__all__ = ["INDEX", "MODEL", "STATE", "TREE", "check", "of_weights", "read", "read_weights"]

MODEL, STATE, TREE = "model.safetensors", "state.safetensors", "state.json"
INDEX = "model.safetensors.index.json"


def read_weights(directory: Path) -> dict[str, Any]:
    """Read a snapshot's weights and nothing else: tensors over the mapped file, whose pages are copied if written to.

    Raises:
        CorruptSnapshotError: a file is missing or can't be parsed.
        UnreachableError: memory can't be had for it.
    """
    with _enough_memory(directory):
        structure = _structure(_tree_in(directory), directory)
        return _decoded("weights", structure, _tensors_in(directory, MODEL, writable=True), directory, _borrowing)


def check(directory: Path, content: str = "full") -> None:
    """Try whether a snapshot can be read as `read` does; no tensor is made, and no code of the user's runs.

    Raises:
        CorruptSnapshotError, UnreachableError: as `read`.
    """

    def tensors(base: str) -> dict[str, HostTensor]:
        return _tensors_in(directory, base)

    # What is missing here may be there where training goes on.
    with _enough_memory(directory), contextlib.suppress(ConfigurationError):
        structure = _structure(_tree_in(directory), directory)
        _all(structure, tensors, directory, content, tree.check, tree.check)


def read(
    files: Mapping[str, memoryview], directory: Path, content: str = "full"
) -> tuple[dict[str, Any], Any, dict[str, str]]:
    """Make a snapshot of its files' bytes: its weights, the rest of its state (None if it holds weights only), and what
    is missing, why.

    Large tensors, and all weights, lie in the memory of ``files``: whoever wants to keep weights copies them into a
    model. Nobody else may look at that memory any more.

    Args:
        files: name -> bytes.
        directory: where they were read: what errors call it.
        content: what the manifest promises. The tree of a snapshot that was demoted to ``"weights"`` still speaks of
            the rest, whose tensors are gone.

    Raises:
        CorruptSnapshotError: a file is missing or can't be parsed.
        UnreachableError: memory can't be had for it.
    """
    with _enough_memory(directory):
        return _read(files, directory, content)


@contextlib.contextmanager
def _enough_memory(directory: Path) -> Iterator[None]:
    """What can't be held now may be good: a text that no writer makes is refused before."""
    try:
        yield
    except MemoryError as error:
        raise UnreachableError(
            f"{directory} can't be read now: memory for its state can't be had. It may be good, so nothing was "
            "changed. Give the job more memory."
        ) from error


def _read(files: Mapping[str, memoryview], directory: Path, content: str) -> tuple[dict[str, Any], Any, dict[str, str]]:
    if TREE not in files:
        raise CorruptSnapshotError(f"{directory / TREE} is missing.")
    structure = _structure(bytes(files[TREE]), directory)

    def tensors(base: str) -> dict[str, HostTensor]:
        missing = [name for name in _named(base, files) if name not in files]
        if missing:
            raise CorruptSnapshotError(f"{directory / missing[0]} is missing.")
        return _joined(
            open_bytes(np.frombuffer(files[name], np.uint8), directory / name) for name in _named(base, files)
        )

    return _all(structure, tensors, directory, content, _borrowing, functools.partial(tree.decode, copy=_has_no_place))


Decode = Callable[[object, Mapping[str, HostTensor]], Any]

_borrowing: Decode = functools.partial(tree.decode, copy=False)


def _all(
    structure: Mapping[str, Any],
    tensors: Callable[[str], Mapping[str, HostTensor]],
    directory: Path,
    content: str,
    of_weights: Decode,
    of_rest: Decode,
) -> tuple[dict[str, Any], Any, dict[str, str]]:
    weights = _decoded("weights", structure, tensors(MODEL), directory, of_weights)
    if content == "weights" or "rest" not in structure:
        return weights, None, {}
    rest = _decoded("rest", structure, tensors(STATE), directory, of_rest)
    return weights, rest, _mapping("missing", structure.get("missing", {}), directory)


def _tree_in(directory: Path) -> bytes:
    try:
        with reading(directory / TREE) as file:
            if (excess := too_large(TREE, os.fstat(file.fileno()).st_size)) is not None:
                raise CorruptSnapshotError(f"{directory}: {excess}.")
            return file.readall()
    except (FileNotFoundError, IrregularError) as error:
        raise CorruptSnapshotError(f"{directory / TREE} is missing: {error.strerror}.") from error


def _tensors_in(directory: Path, base: str, *, writable: bool = False) -> dict[str, HostTensor]:
    names = _named(base, [path.name for path in directory.iterdir()])
    return _joined(open_file(directory / name, writable=writable) for name in names)


def _decoded(
    name: str, structure: Mapping[str, Any], tensors: Mapping[str, HostTensor], directory: Path, decode: Decode
) -> dict[str, Any]:
    try:
        value = decode(structure[name], tensors)
    except CorruptSnapshotError as error:
        raise CorruptSnapshotError(f"{directory / TREE}: {error}.") from error
    return _mapping(name, value, directory)


def _mapping(name: str, value: object, directory: Path) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        found = type(value).__name__
        raise CorruptSnapshotError(f"{directory / TREE}: expected names of values in '{name}', found {found}.")
    return value


def of_weights(name: str) -> bool:
    """Whether a file stays when a snapshot is reduced to its weights."""
    return pattern_of(STATE).fullmatch(name) is None


def _has_no_place(host: HostTensor) -> bool:
    """Whether a tensor can't stay where its file was read to: it is small, which is no reason to keep a file's memory,
    or lies where no allocator would put it, which some kernels' results depend on."""
    return host.nbytes < LARGE or host.data.ctypes.data % ALIGNMENT != 0


def _named(base: str, names: Iterable[str]) -> list[str]:
    """The file of that name, or those that stand in its place."""
    pattern = pattern_of(base)
    return sorted(name for name in names if pattern.fullmatch(name)) or [base]


def _joined(files: Iterable[SafetensorsFile]) -> dict[str, HostTensor]:
    return {name: tensor for file in files for name, tensor in file.items()}


def _structure(text: bytes, directory: Path) -> dict[str, Any]:
    path = directory / TREE
    structure = tree.from_json(text, str(path))
    if not isinstance(structure, dict) or "weights" not in structure:
        raise CorruptSnapshotError(f"{path}: expected an object with 'weights', found {type(structure).__name__}.")
    return structure
