"""The allow-list: types of the user's own that may be stored, each by a codec under a name that goes into the file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from ckpt_callbacks.errors import ConfigurationError

__all__ = ["register_codec", "unregister_codec"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Codec:
    """How values of exactly ``type`` become plain values and tensors, and come back."""

    type: type
    name: str
    encode: Callable[[Any], object]
    decode: Callable[[Any], object]


BY_TYPE: dict[type, Codec] = {}
BY_NAME: dict[str, Codec] = {}


def register_codec(type: type[T], name: str, encode: Callable[[T], object], decode: Callable[[Any], T]) -> None:
    """Allow values of exactly ``type``: ``encode`` turns one into plain values and tensors, ``decode`` turns those
    back.

    The file holds only ``name``; whoever reads it must have registered a codec of that name. Registering a class of the
    same module and name again, as a notebook does, replaces its codec.

    ConfigurationError: the name is empty or belongs to another type, or the type is a builtin one, which is stored
    anyway.
    """
    if not name or type.__module__ == "builtins":
        raise ConfigurationError(f"a codec takes a name and a type of your own, found {name!r} and {type.__qualname__}")
    taken = BY_NAME.get(name)
    if taken is not None and _title(taken.type) != _title(type):
        raise ConfigurationError(
            f"the codec name {name!r} belongs to {_title(taken.type)}; choose another for {_title(type)}"
        )
    for known in [taken, BY_TYPE.get(type)]:
        if known is not None:
            unregister_codec(known.name)
    BY_TYPE[type] = BY_NAME[name] = Codec(type, name, encode, decode)


def unregister_codec(name: str) -> None:
    """Forget the codec called ``name``, if there is one."""
    codec = BY_NAME.pop(name, None)
    if codec is not None:
        BY_TYPE.pop(codec.type, None)


def _title(type: type) -> str:
    return f"{type.__module__}.{type.__qualname__}"
