"""What the tests of the state share: a way through the file and back, and a comparison that sees every bit."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ckpt_callbacks.state import (
    HostTensor,
    Image,
    Layout,
    Source,
    as_numpy,
    decode,
    encode,
    from_json,
    open_file,
    to_json,
)
from ckpt_callbacks.state.tensors.libraries import NUMPY


def through_memory(tree: Any, **options: Any) -> Any:
    """Encode, pass the structure through JSON text, decode."""
    encoded = encode(tree)
    return decode(from_json(to_json(encoded.structure)), encoded.tensors, **options)


def through_file(tree: Any, directory: Path, **options: Any) -> Any:
    """As ``through_memory``, with the tensors written to a file and mapped from it."""
    encoded = encode(tree)
    path = write(directory / "state.safetensors", encoded.tensors)
    return decode(from_json(to_json(encoded.structure)), open_file(path), **options)


def write(path: Path, tensors: Mapping[str, HostTensor], metadata: Mapping[str, str] | None = None) -> Path:
    """Write the image of a file."""
    path.write_bytes(filled(image_of(tensors, metadata)))
    return path


def image_of(tensors: Mapping[str, HostTensor], metadata: Mapping[str, str] | None = None) -> Image:
    """The image of a file with tensors that are in memory already."""
    sources = {name: Source(tensor.dtype, tensor.shape, NUMPY, tensor.data) for name, tensor in tensors.items()}
    return Image(Layout.of(sources, metadata), sources)


def filled(image: Image) -> bytes:
    """All bytes of a file."""
    out = np.empty(image.size, np.uint8)
    for tensor, start, stop in image.begin(out):
        tensor.copy_into(out[start:stop])
    return out.tobytes()


def bits(value: Any) -> Any:
    """A value as nested tuples in which two things are equal only if their types and all their bits are."""
    kind = type(value).__name__
    if isinstance(value, float) and type(value) is float:
        return kind, struct.pack(">d", value)
    if type(value) is int:
        return kind, hex(value)
    if type(value) is complex:
        return kind, struct.pack(">dd", value.real, value.imag)
    if type(value).__module__ == "torch" and hasattr(value, "untyped_storage"):
        host = encode(value.detach().contiguous()).tensors["(root)"]
        return kind, str(value.dtype), tuple(value.shape), value.stride(), value.requires_grad, host.data.tobytes()
    if isinstance(value, np.ndarray | np.generic):
        return kind, value.dtype.str, value.dtype.name, value.shape, value.tobytes()
    if isinstance(value, dict):
        return kind, [(bits(key), bits(item)) for key, item in value.items()], bits(getattr(value, "__dict__", {}) or 0)
    if isinstance(value, set | frozenset):
        return kind, sorted(map(repr, map(bits, value)))
    if dataclasses.is_dataclass(value):
        return kind, [(field.name, bits(getattr(value, field.name))) for field in dataclasses.fields(value)]
    if isinstance(value, list | tuple) or kind == "deque":
        return kind, getattr(value, "maxlen", None), [bits(item) for item in value]
    if kind in ("SimpleNamespace", "Namespace"):
        return kind, bits(vars(value))
    return kind, repr(value)


def arrays(tensors: Mapping[str, HostTensor]) -> dict[str, np.ndarray[Any, Any]]:
    """All tensors of a file as numpy arrays."""
    return {name: as_numpy(host) for name, host in tensors.items()}
