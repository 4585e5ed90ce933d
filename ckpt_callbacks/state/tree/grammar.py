"""The grammar of a structure: what JSON says of a tree, and how its places are called."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

__all__ = [
    *("FACTORIES", "MAX_DEPTH", "NAMED", "ROOT", "Node", "OnFlattened", "OnUnstorable"),
    *("canonical", "is_unicode", "join", "key_name", "knows_factory", "plain_key"),
]

MAX_DEPTH = 100
"""How many containers may lie within each other."""

Node = dict[str, Any]
OnUnstorable = Callable[[str, object, str], object]
OnFlattened = Callable[[str, str], None]

ROOT = "(root)"
"""What the place of the whole tree is called."""

NAMED = (str, int, float, bool, type(None))
"""Types of keys that are written out in a place's name."""

FACTORIES: dict[str, Callable[[], Any]] = {
    kind.__name__: kind for kind in (list, dict, set, tuple, int, float, str, bool)
}
"""The factories that a defaultdict may have, by name."""


def join(path: str, key: object) -> str:
    """The name of a place within another one."""
    return f"{path}.{key}" if path else str(key)


def key_name(key: object) -> str:
    """A key in a path: nothing is asked of an object whose text could be long or costly."""
    if type(key) is str:
        return key
    plain = type(key) in NAMED or (type(key) is tuple and all(type(part) in NAMED for part in key))
    return repr(key) if plain else f"<{type(key).__name__}>"


def plain_key(key: object) -> bool:
    """Whether JSON can say a dict's key as it is."""
    return type(key) is str and not key.startswith("$") and is_unicode(key)


def is_unicode(text: str) -> bool:
    """Whether text can be written as UTF-8, as JSON's must be: lone surrogates can't."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def knows_factory(factory: object) -> bool:
    """Whether a defaultdict of this factory can be stored."""
    return factory is None or any(factory is known for known in FACTORIES.values())


def canonical(node: Any) -> str:
    """A node as text, the same for equal ones."""
    return json.dumps(node, sort_keys=True)
