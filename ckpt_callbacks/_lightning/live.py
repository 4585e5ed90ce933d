"""What training changes outside of any ``state_dict``: attributes, buffers that aren't persistent, what is frozen.

Noted when training begins; what differs from that at a boundary is state.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import torch
from torch.nn.parameter import is_lazy

from ckpt_callbacks._lightning import private, private_torch
from ckpt_callbacks._lightning.weights import is_mask_or_masked, modules_of, shapes_of
from ckpt_callbacks.checkpointer import BaseCheckpointer
from ckpt_callbacks.messages import warn
from ckpt_callbacks.state import random_state
from ckpt_callbacks.state.objects.attributes import Attributes, outermost

__all__ = ["NOTHING", "Live", "put_back_groups"]


NOTHING: Mapping[str, Any] = MappingProxyType({"attributes": [], "generators": {}})
"""What has changed when nothing has."""


class Live:
    """The live objects of a fit, and what they were when training began.

    Args:
        trainer: of the fit, before its first batch and before a snapshot is put back.
        loaded: names of the modules that were there when Lightning could load weights.
    """

    def __init__(self, trainer: Any, loaded: Set[str]) -> None:
        self.trainer, self.module = trainer, trainer.lightning_module
        self._loaded, self._settled = loaded, set(loaded)
        self.asked: Mapping[str, Any] = NOTHING  # what `circumstances` gave when the user was asked for the loaders
        self._tree = set(map(id, self.module.modules()))
        self._watching = set(map(id, trainer.callbacks))
        self._attributes = Attributes(self.objects(), self._counts, self._elsewhere)
        self._optimizers, self._schedulers = list(trainer.optimizers), _schedulers(trainer)
        self._trainable = {name: parameter.requires_grad for name, parameter in self.module.named_parameters()}
        self._shapes = shapes_of(self.module)
        self._buffers = {name: buffer.detach().clone() for name, buffer in self._not_persistent()}

    def settle(self) -> None:
        """Training's own hooks at its start have run: what they made has a place in every process."""
        self._attributes.settle()
        self._settled = modules_of(self.trainer)
        self._optimizers, self._schedulers = list(self.trainer.optimizers), _schedulers(self.trainer)

    def circumstances(self) -> dict[str, Any]:
        """What loaders may be made of, beside the global random state: attributes that changed, and generators."""
        return {"attributes": self._attributes.capture()[0], "generators": self.generators()}

    @contextmanager
    def asking(self, circumstances: Mapping[str, Any]) -> Iterator[None]:
        """While the user is asked for loaders again: all is as it was when these were made."""
        now = self.generators()
        with self._attributes.lending(circumstances["attributes"]):
            self.put_back_generators(circumstances["generators"])
            try:
                yield
            finally:
                self.put_back_generators(now)

    def generators(self) -> dict[str, Any]:
        """The states of the random generators in attributes of modules, the datamodule, callbacks and optimizers."""
        return random_state.capture_generators(self._attributes_by_name(), self._is_machinery)

    def put_back_generators(self, saved: Mapping[str, Any]) -> None:
        """Set them, and make those that were made while training."""
        attributes, objects = self._attributes_by_name(), self.objects()
        random_state.restore_generators(attributes, saved, self._is_machinery)
        for name, now in attributes.items():
            fields = vars(objects[name])
            fields.update({key: value for key, value in now.items() if fields.get(key) is not value})

    def _is_machinery(self, value: object) -> bool:
        """Whether it is looked at elsewhere or holds no generator: the trainer, whom all modules refer to, and us.

        Python 3.11 reads an object's attributes more slowly for ever once anybody has looked at its ``__dict__``.
        """
        return value is self.trainer or isinstance(value, BaseCheckpointer)

    def capture(
        self, weights: Mapping[str, Any], parameters: Mapping[str, torch.Tensor], read_again: Iterable[Any]
    ) -> tuple[dict[str, Any], dict[str, str]]:
        """What changed, and what of it can't be stored -> why.

        Args:
            weights: the module's weights as they are saved: Lightning's, after the user's and other callbacks' hooks.
            parameters: of the module, by name.
            read_again: the objects that data are made of once more, to get back to the place in them.
        """
        self._tree, self._watching = set(map(id, self.module.modules())), set(map(id, self.trainer.callbacks))
        attributes, missing = self._attributes.capture()
        for path in self._attributes.changed_within(read_again, attributes):
            missing[path] = "training changes it, and the data set reads it: what was read before can't be read again"
        if [id(one) for one in self.trainer.optimizers] != [id(one) for one in self._optimizers]:
            missing["optimizers"] = "replaced while training: give the fit that follows a directory of its own"
        if not private.replaces_schedulers(self.trainer) and _schedulers(self.trainer) != self._schedulers:
            missing["schedulers"] = "replaced while training: give the fit that follows a directory of its own"
        late = modules_of(self.trainer) - self._loaded
        for name in outermost(late - self._settled):
            missing[f"module.{name}"] = "this module was made while training: make it in __init__ or configure_model"
        trainable = {name: parameter.requires_grad for name, parameter in parameters.items()}
        saved = {
            "attributes": attributes,
            "asked": dict(self.asked),
            "trainable": {name: now for name, now in trainable.items() if self._trainable.get(name) is not now},
            "late": outermost(late),
            "reshaped": [name for name, shape in shapes_of(self.module).items() if self._shapes.get(name) != shape],
            "pruned": private_torch.pruned_in(self.module),
            "tensors": self._tensors(weights),
            "groups": _groups(self.trainer, parameters),
        }
        return saved, missing

    def put_back(self, saved: Mapping[str, Any]) -> None:
        """Make everything what it was."""
        for name, tensor in saved["pruned"]:
            private_torch.as_pruned(self.module.get_submodule(name), tensor)
        live = dict(self.module.named_parameters()) | dict(self.module.named_buffers())
        for name, value in saved["tensors"].items():
            self._put_back_tensor(name, live.get(name), value)
        for name, trainable in saved["trainable"].items():
            if name in live:
                live[name].requires_grad_(trainable)
        for path in self._attributes.put_back(saved["attributes"]):
            warn(f"{path} was in the snapshot, and has no place in the objects of this run: left as it is")

    def _put_back_tensor(self, name: str, live: torch.Tensor | None, value: torch.Tensor) -> None:
        if live is not None and live.shape == value.shape:
            live.data.copy_(value)
            return
        owner, _, key = name.rpartition(".")
        module = self.module.get_submodule(owner)
        if key not in dict(module.named_parameters(recurse=False)):
            private_torch.set_buffer(module, key, value.to(self.module.device))  # it changed its shape, or was None

    def _tensors(self, weights: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """Parameters and buffers that ``weights`` lacks, or has in another state (averaged, or pruned for good)."""
        anyway = dict(self.module.named_buffers())  # a hook may strip what is frozen, but BatchNorm changes it
        altered = {
            name: tensor
            for name, tensor in self.module.state_dict(keep_vars=True).items()
            if isinstance(tensor, torch.Tensor)
            and (is_mask_or_masked(name) or not _is_same(weights.get(name), tensor))
            and (name in weights or tensor.requires_grad or name in anyway or is_mask_or_masked(name))
        }
        buffers = {
            name: buffer
            for name, buffer in self._not_persistent()
            if name not in self._buffers or not _is_equal(self._buffers[name], buffer)
        }
        return {name: tensor.detach() for name, tensor in (altered | buffers).items()}

    def _not_persistent(self) -> Iterator[tuple[str, torch.Tensor]]:
        for path, module in self.module.named_modules():
            if not private.is_metric(module):
                for name, buffer in private_torch.non_persistent_buffers(module):
                    yield f"{path}.{name}".removeprefix("."), buffer

    def _attributes_by_name(self) -> dict[str, dict[str, Any]]:
        """What modules, the datamodule, callbacks and optimizers of the user's have, less what is the framework's."""
        return {
            name: {key: value for key, value in vars(one).items() if key != "training" and self._counts(one, key)}
            for name, one in self.objects().items()
            if not isinstance(one, list)
        }

    # Whose attributes count ---------------------------------------------------------------------------------------

    def objects(self) -> dict[str, Any]:
        """All whose attributes count, by the names that these are saved under."""
        modules: dict[str, Any] = {}
        hooks: dict[str, Any] = {}
        for name, module in self.module.named_modules():
            path = f"module.{name}".removesuffix(".")
            modules[path] = module
            if functions := private.hooks_of(module):
                hooks[f"{path}.hooks"] = functions
        numbers: Counter[str] = Counter()
        callbacks = {}
        for callback in self.trainer.callbacks:
            name = type(callback).__name__
            callbacks[f"callbacks.{name}[{numbers[name]}]"] = callback
            numbers[name] += 1
        datamodule = {} if self.trainer.datamodule is None else {"datamodule": self.trainer.datamodule}
        hparams = {"module.hparams": self.module.hparams}  # in a property, which a walk does not run
        rates: dict[str, Any] = {
            f"schedulers[{number}].lr_lambdas": rate
            for number, config in enumerate(self.trainer.lr_scheduler_configs)
            if isinstance(rate := getattr(config.scheduler, "lr_lambdas", None), list)
        }
        optimizers = {
            f"optimizers[{number}]": one
            for number, one in enumerate(self.trainer.optimizers)
            if not private.is_torchs(type(one))
        }
        return {
            **modules,
            **hooks,
            **hparams,
            **callbacks,
            **optimizers,
            **rates,
            **datamodule,
            "trainer": self.trainer,
        }

    def _counts(self, holder: Any, name: str) -> bool:
        if isinstance(holder, torch.optim.Optimizer):
            return name not in private.own_of_optimizers()
        if holder is self.trainer or id(holder) in self._watching:
            return private.counts_of_callback(holder, name)
        return name not in private.own_attributes(holder, in_tree=id(holder) in self._tree)

    def _elsewhere(self) -> list[Any]:
        trainer, module = self.trainer, self.module
        schedulers = [config.scheduler for config in trainer.lr_scheduler_configs]
        return [
            *(trainer, trainer.strategy, *trainer.callbacks, *trainer.loggers, *trainer.optimizers, *schedulers),
            *(*private.loaders_of(trainer), *module.modules(), *module.parameters(), *module.buffers()),
        ]


# Tensors -----------------------------------------------------------------------------------------------------------


def _is_same(saved: Any, live: torch.Tensor) -> bool:
    """Whether what is saved is the live tensor itself, as far as that can be told: some have no memory of their own."""
    if not isinstance(saved, torch.Tensor) or saved.layout is not live.layout or is_lazy(saved) or is_lazy(live):
        return saved is live
    plain = live.layout is torch.strided
    return saved.shape == live.shape and (not plain or saved.data_ptr() == live.data_ptr())


def _is_equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype and bool(torch.equal(one, other))


# Optimizers' groups: some are added while training runs -------------------------------------------------------------


def _schedulers(trainer: Any) -> list[int]:
    return [id(config.scheduler) for config in trainer.lr_scheduler_configs]


def _groups(trainer: Any, parameters: Mapping[str, torch.Tensor]) -> list[list[list[str]]]:
    """The names of the parameters in each group of each optimizer."""
    names = {id(parameter): name for name, parameter in parameters.items()}
    return [
        [
            [names.get(id(parameter), "").removesuffix("_orig") for parameter in group["params"]]
            for group in one.param_groups
        ]
        for one in trainer.optimizers
    ]


def put_back_groups(trainer: Any, groups: list[list[list[str]]]) -> None:
    """Give the optimizers the groups that they had, if these differ: Lightning loads into groups that are alike."""
    parameters = dict(trainer.lightning_module.named_parameters())
    for optimizer, saved, now in zip(trainer.optimizers, groups, _groups(trainer, parameters), strict=False):
        if saved != now and all(name in parameters for group in saved for name in group):
            first = optimizer.param_groups[0]
            optimizer.param_groups[:] = [
                {
                    **(optimizer.param_groups[index] if index < len(now) else first),
                    "params": [parameters[one] for one in group],
                }
                for index, group in enumerate(saved)
            ]
