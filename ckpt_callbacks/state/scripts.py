"""The user's own code: modules that are neither Python's nor installed."""

from __future__ import annotations

import functools
import sys
from typing import Any

__all__ = ["is_script", "namespaces"]


@functools.cache
def is_script(module: str) -> bool:
    """Whether a module, by its name, is neither Python's own nor installed, nor this package."""
    file = getattr(sys.modules.get(module), "__file__", None) or ""
    installed = "site-packages" in file or "dist-packages" in file
    return module.partition(".")[0] not in ("ckpt_callbacks", *sys.stdlib_module_names) and not installed


def namespaces() -> dict[str, dict[str, Any]]:
    """The global names of every such module that is loaded; those of a notebook's cells are in ``__main__``."""
    return {name: vars(sys.modules[name]) for name in _loaded(len(sys.modules)) if name in sys.modules}


@functools.lru_cache(1)
def _loaded(count: int) -> tuple[str, ...]:
    """Their names; looked for again when modules were loaded meanwhile."""
    return tuple(
        name
        for name, module in list(sys.modules.items())
        if (name == "__main__" or getattr(module, "__file__", None)) and is_script(name) and hasattr(module, "__dict__")
    )
