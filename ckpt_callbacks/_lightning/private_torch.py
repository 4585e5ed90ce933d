"""Private attributes of torch's modules, each with what for, since when, and what breaks without it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.nn.utils import prune

__all__ = ["as_pruned", "non_persistent_buffers", "pruned_in", "set_buffer", "set_versions"]


def set_buffer(module: torch.nn.Module, key: str, value: torch.Tensor) -> None:
    """Put another tensor in the place of a buffer (``Module._buffers``, since torch 0.1).

    ``setattr`` refuses one that was None; without it, buffers that changed their shape could not come back.
    """
    module._buffers[key] = value


def non_persistent_buffers(module: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """What ``register_buffer(persistent=False)`` made (``_non_persistent_buffers_set``, since torch 1.6): no
    ``state_dict`` has it, and training may change it."""
    for name in module._non_persistent_buffers_set:
        if (buffer := module._buffers.get(name)) is not None:
            yield name, buffer


def pruned_in(module: torch.nn.Module) -> list[list[str]]:
    """The modules that are pruned, and which tensor of each: ``_tensor_name`` of the hooks in ``_forward_pre_hooks``
    (since torch 1.4). The names of weights depend on it."""
    return [
        [name, hook._tensor_name]
        for name, one in module.named_modules()
        for hook in one._forward_pre_hooks.values()
        if isinstance(hook, prune.BasePruningMethod)
    ]


def as_pruned(module: torch.nn.Module, tensor: str) -> None:
    """Give a parameter (``_parameters``) the form of a pruned one, so that saved names fit; nothing if it has it."""
    if tensor in module._parameters:
        prune.custom_from_mask(module, tensor, torch.ones_like(getattr(module, tensor)))


def set_versions(weights: Any, versions: Any) -> None:
    """``_metadata`` of a ``state_dict`` (since torch 0.4): the versions that modules look at when they load it."""
    weights._metadata = versions
