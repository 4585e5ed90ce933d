"""The weights of a module whose tensors are others while training runs: made late, reshaped, or pruned."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence, Set
from typing import Any

import torch

from ckpt_callbacks._lightning import private_torch

__all__ = [
    "is_mask_or_masked",
    "modules_of",
    "of_late",
    "put_back_reshaped",
    "shapes_of",
    "unpruned",
    "with_own",
    "without_late",
    "without_reshaped",
]


def with_own(weights: Mapping[str, Any], missing: Container[str], module: torch.nn.Module) -> dict[str, Any]:
    """The weights with the module's own in the place of what could not be stored: a sparse buffer, say.

    Args:
        weights: of a snapshot, with None for what it lacks.
        missing: the paths of that. Of an extra state only these are the module's own.
        module: about to be loaded.
    """
    own = module.state_dict()
    return {name: _completed(value, own.get(name), name, missing) for name, value in weights.items()}


def _completed(saved: Any, own: Any, path: str, missing: Container[str]) -> Any:
    if saved is None and path in missing:
        return own
    if type(saved) is dict and isinstance(own, Mapping):
        return {key: _completed(value, own.get(key), f"{path}.{key}", missing) for key, value in saved.items()}
    if type(saved) in (list, tuple) and isinstance(own, Sequence) and len(own) == len(saved):
        pairs = enumerate(zip(saved, own, strict=True))
        return type(saved)(_completed(value, its, f"{path}.{index}", missing) for index, (value, its) in pairs)
    return saved


# Modules that are made after weights are loaded, in `on_fit_start` or `on_train_start` -------------------------------


def modules_of(trainer: Any) -> set[str]:
    """The names of all modules that there are now."""
    return {name for name, _ in trainer.lightning_module.named_modules()}


def shapes_of(module: torch.nn.Module) -> dict[str, torch.Size]:
    """Of all buffers that there are."""
    return {name: buffer.shape for name, buffer in module.named_buffers()}


def without_reshaped(
    weights: Mapping[str, Any], reshaped: Iterable[str], module: torch.nn.Module
) -> dict[str, torch.Tensor]:
    """The weights with the module's own buffers in the place of those that have another shape now."""
    own = dict(module.named_buffers())
    shared = {name: weights[name] if name not in reshaped else own.get(name) for name in weights}
    return {name: tensor for name, tensor in shared.items() if tensor is not None}


def put_back_reshaped(weights: Mapping[str, Any], reshaped: Iterable[str], module: torch.nn.Module) -> dict[str, Any]:
    """Give the module its buffers of another shape; give their weights."""
    found = {name: weights[name] for name in reshaped if name in weights}
    for name, value in found.items():
        owner, _, key = name.rpartition(".")
        holder = module.get_submodule(owner)
        device = next((one.device for one in module.parameters()), value.device)
        private_torch.set_buffer(holder, key, value.to(device, copy=True))
    return found


def of_late(weights: Mapping[str, Any], late: Iterable[str], modules: Set[str]) -> dict[str, Any]:
    """The weights of those ``late`` modules that are among ``modules`` by now."""
    present = tuple(f"{name}." for name in late if name in modules)
    return {name: value for name, value in weights.items() if name.startswith(present)}


def without_late(weights: Mapping[str, Any], late: Iterable[str], modules: Set[str]) -> dict[str, Any]:
    """The weights less those of ``late`` modules that are not among ``modules`` (yet)."""
    absent = of_late(weights, [name for name in late if name not in modules], set(late))
    return {name: value for name, value in weights.items() if name not in absent}


# Pruning: it replaces a parameter ``p`` by ``p_orig`` and ``p_mask`` while training runs ----------------------------


def is_mask_or_masked(name: str) -> bool:
    return name.endswith(("_orig", "_mask"))


def unpruned(weights: Mapping[str, Any], pruned: list[list[str]]) -> dict[str, Any]:
    """Weights under the names of a module that isn't pruned yet, as a new process has it."""
    names = {f"{module}.{tensor}".removeprefix(".") for module, tensor in pruned}
    renamed = {
        name.removesuffix("_orig") if name.endswith("_orig") and name.removesuffix("_orig") in names else name: value
        for name, value in weights.items()
    }
    return {name: value for name, value in renamed.items() if name.removesuffix("_mask") not in names or name in names}
