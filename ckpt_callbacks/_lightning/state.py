"""Trainer -> state, state -> trainer.

One rule: a state is put back at the hook where it was captured, just as it was. Lightning's own restore runs earlier
and has one duty only: to bring its loops to that hook again. What it counts, steps or resets on the way is overwritten.
"""

from __future__ import annotations

import copy
import functools
from collections import OrderedDict
from collections.abc import Mapping, Set
from typing import Any, Literal

import torch

from ckpt_callbacks._lightning import private, private_torch
from ckpt_callbacks._lightning.live import Live
from ckpt_callbacks._lightning.loader import Tape
from ckpt_callbacks._lightning.steadiness import steady_tensors
from ckpt_callbacks._lightning.validation import Validation
from ckpt_callbacks._lightning.weights import (
    modules_of,
    of_late,
    put_back_reshaped,
    unpruned,
    with_own,
    without_late,
    without_reshaped,
)
from ckpt_callbacks.engine import Progress
from ckpt_callbacks.resume import Restored
from ckpt_callbacks.state import random_state
from ckpt_callbacks.state.captured import Captured
from ckpt_callbacks.state.memory.pages import LARGE, fresh

__all__ = ["Where", "capture", "devices", "for_evaluation", "progress_of", "put_back", "size", "to_checkpoint"]

# Where training stood: all of a batch is done and nothing of the next; or no epoch is running.
Where = Literal["between batches", "between epochs"]

_HOLDERS = ("loaders", "schedulers")

# What a run can be resumed without: hyperparameters are for people, and may hold anything.
_OPTIONAL = ("checkpoint.hyper_parameters", "checkpoint.datamodule_hyper_parameters", "checkpoint.hparams_")


def devices(trainer: Any) -> dict[str, str]:
    """What bits depend on beside versions: the devices, and how many threads share a sum on a CPU."""
    device = trainer.strategy.root_device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {"devices": f"{trainer.world_size} x {name}", "threads": str(torch.get_num_threads())}


def progress_of(trainer: Any, where: Where) -> Progress:
    """Where training stands, in the framework's own counts."""
    loop = trainer.fit_loop
    batches = loop.epoch_loop.batch_progress
    return Progress(
        step=trainer.global_step,
        epoch=loop.epoch_progress.current.processed,
        batch=0 if where == "between epochs" else batches.current.completed,
        batches=batches.total.completed,
    )


def capture(
    trainer: Any, tape: Tape, validation: Validation, live: Live, where: Where, *, steady: bool = False
) -> Captured:
    """Take the whole state of a fit; draws nothing and changes nothing.

    Args:
        trainer: at a boundary.
        tape, validation, live: of the fit.
        where: it stands.
        steady: whether training goes on from here with a batch.

    The random state is taken first and put back last, because `state_dict` hooks of users may draw.
    """
    now = random_state.capture()
    checkpoint = private.dump_checkpoint(trainer)
    weights = checkpoint.pop("state_dict")
    checkpoint["loops"] = {"fit_loop": private.loops_state(trainer)}
    checkpoint["lr_schedulers"] = [_without_generators(one) for one in checkpoint["lr_schedulers"]]
    parameters = dict(trainer.lightning_module.named_parameters())
    changed, missing = live.capture(weights, parameters, tape.reads_again())
    rest = {
        "where": where,
        "weights_metadata": getattr(weights, "_metadata", None),
        "checkpoint": checkpoint,
        "random": now,
        "generators": _capture_generators(trainer, live),
        "tape": tape.as_dict(_batches_used(trainer, tape) if where == "between batches" else None),
        "data_values": tape.values(),
        "validation": validation.capture(),
        "live": changed,
        "swa": private.swa_state(trainer),
        "lottery": private.lottery_state(trainer),
        "grads": _gradients(trainer, parameters, where),
        "metrics": {
            "callback": dict(trainer.callback_metrics),
            "logged": dict(trainer.logged_metrics),
            "progress_bar": dict(trainer.progress_bar_metrics),
        },
        "metric_states": private.metric_states(trainer),
        "epoch_metrics": {} if where == "between epochs" else private.epoch_metrics(trainer),
        "trainer": {
            "should_stop": trainer.should_stop,
            "accumulate_grad_batches": trainer.accumulate_grad_batches,
            "loaders_of_epoch": private.asked_in_epoch(trainer),
        },
    }
    random_state.restore(now)
    missing |= tape.missing() | validation.missing()
    trained = {name for name, one in parameters.items() if one.requires_grad}
    stepped = private.in_optimizers(trainer)
    frozen = {name for name, one in parameters.items() if not one.requires_grad or id(one) not in stepped}
    lasting = functools.partial(steady_tensors, trainer) if steady else dict
    return Captured(weights, rest, _OPTIONAL, missing, data=tape.how, trained=trained, frozen=frozen, steady=lasting)


def size(trainer: Any) -> int:
    """About how many bytes the state has, once the optimizers have stepped: of weights, buffers and moments."""
    module = trainer.lightning_module
    moments = [one for optimizer in trainer.optimizers for state in optimizer.state.values() for one in state.values()]
    held = {id(one): one for one in (*module.parameters(), *module.buffers(), *moments)}
    dense = [one for one in held.values() if isinstance(one, torch.Tensor) and one.layout is torch.strided]
    return sum(one.nbytes for one in dense)


def to_checkpoint(restored: Restored, module: torch.nn.Module, modules: Set[str]) -> dict[str, Any]:
    """The dictionary from which Lightning restores itself, with counters that lead its loops to the saved hook.

    Args:
        restored: the snapshot.
        module: about to be loaded.
        modules: the names of the modules that there are now; the weights of others follow when these are made.
    """
    live = restored.rest["live"]
    checkpoint = dict(restored.rest["checkpoint"])
    weights = without_late(unpruned(restored.weights, live["pruned"]), live["late"], modules)
    weights = without_reshaped(with_own(weights, restored.missing, module), live["reshaped"], module)
    checkpoint["state_dict"] = _state_dict(restored, weights)
    checkpoint |= {"loops": copy.deepcopy(checkpoint["loops"]), "lr_schedulers": _schedulers(restored)}
    # The fetch decides anew whether the batch is the epoch's last; left set, the epoch would end before it.
    checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["is_last_batch"] = False
    return checkpoint


def _without_generators(scheduler: Any) -> Any:
    """A scheduler's state without random generators, which have a place of their own."""
    if isinstance(scheduler, list):
        return [_without_generators(item) for item in scheduler]
    if type(scheduler) is not dict:
        return scheduler
    kept = {key: value for key, value in scheduler.items() if not random_state.is_generator(value)}
    return {key: _without_generators(value) if key == "lr_lambdas" else value for key, value in kept.items()}


def _schedulers(restored: Restored) -> list[dict[str, Any]]:
    """The schedulers' states, without what could not be captured: that stays as the script has it, and is not None."""
    schedulers = copy.deepcopy(restored.rest["checkpoint"]["lr_schedulers"])
    for path in restored.missing:
        number, _, name = path.removeprefix("checkpoint.lr_schedulers.").partition(".")
        if path.startswith("checkpoint.lr_schedulers.") and number.isdecimal() and int(number) < len(schedulers):
            schedulers[int(number)].pop(name.partition(".")[0], None)
    return list(schedulers)


def for_evaluation(restored: Restored, module: torch.nn.Module) -> dict[str, Any]:
    """The dictionary from which `Trainer.test` and its like restore: the position of a fit means nothing to them."""
    weights = with_own(restored.weights, restored.missing, module)
    rest = restored.rest or {}
    checkpoint = {key: value for key, value in rest.get("checkpoint", {}).items() if key != "loops"}
    version = restored.snapshot.manifest.versions.get(restored.snapshot.manifest.framework or "", "")
    return {"pytorch-lightning_version": version, **checkpoint, "state_dict": _state_dict(restored, weights)}


def put_back(
    trainer: Any, tape: Tape, validation: Validation, live: Live, restored: Restored, loaded: Mapping[str, Any]
) -> None:
    """Set everything that Lightning's own restore left out, at the place where it was captured.

    The weights are set once more: Lightning did so before it changed the module's precision, and before hooks ran that
    may have changed them.

    Args:
        trainer: at the place where the snapshot was captured.
        tape, validation, live: of the fit.
        restored: the snapshot.
        loaded: the dictionary that Lightning restored from, as the user's `on_load_checkpoint` hooks left it.
    """
    rest = restored.rest
    validation.make(rest["validation"], live)
    loaded["state_dict"].update(put_back_reshaped(restored.weights, rest["live"]["reshaped"], trainer.lightning_module))
    loaded["state_dict"].update(of_late(restored.weights, rest["live"]["late"], modules_of(trainer)))
    trainer.strategy.load_model_state_dict(loaded, strict=trainer.lightning_module.strict_loading)
    live.put_back(rest["live"])
    private.put_back_swa(trainer, rest["swa"])
    private.put_back_lottery(trainer, rest["lottery"])
    private.put_back_optimizers(trainer, loaded, _schedulers(restored))
    private.put_back_loops(trainer, rest["checkpoint"]["loops"]["fit_loop"])
    private.put_back_metrics(trainer, rest["metrics"])
    private.put_back_metric_states(trainer, rest["metric_states"])
    private.put_back_epoch_metrics(trainer, rest["epoch_metrics"], restored.snapshot.progress.batch)
    trainer.accumulate_grad_batches = _positive(rest["trainer"]["accumulate_grad_batches"])
    private.put_back_asked_in_epoch(trainer, rest["trainer"]["loaders_of_epoch"])
    _put_back_gradients(trainer, rest["grads"])
    validation.put_back(rest["validation"])
    tape.put_back_values(rest["data_values"])
    _put_back_generators(trainer, live, rest["generators"])
    random_state.restore(rest["random"])


def _positive(count: int) -> int:
    if type(count) is not int or count < 1:
        raise ValueError(f"accumulate_grad_batches={count!r}, expected a whole number from 1")
    return count


def _batches_used(trainer: Any, tape: Tape) -> int:
    """How many batches of this epoch training has used; one more may be fetched (if the loader has no length).

    A `training_step` that fetches for itself has, at every boundary, used all that was fetched.
    """
    if private.hands_out_iterator(trainer):
        return tape.fetched
    return int(trainer.fit_loop.epoch_loop.batch_progress.current.completed)


def _capture_generators(trainer: Any, live: Live) -> dict[str, Any]:
    """Random generators of the user's own: in the loaders, in schedulers, and in attributes."""
    return random_state.capture_generators(_holders(trainer)) | live.generators()


def _put_back_generators(trainer: Any, live: Live, saved: Mapping[str, Any]) -> None:
    ours = {path: state for path, state in saved.items() if path.startswith(tuple(f"[{name!r}]" for name in _HOLDERS))}
    random_state.restore_generators(_holders(trainer), ours)
    live.put_back_generators({path: state for path, state in saved.items() if path not in ours})


def _holders(trainer: Any) -> dict[str, Any]:
    return dict(zip(_HOLDERS, (private.loaders_of(trainer), private.schedulers_of(trainer)), strict=True))


def _state_dict(restored: Restored, weights: Mapping[str, Any]) -> OrderedDict[str, torch.Tensor]:
    """Weights as `torch.nn.Module.state_dict` gives them, with the versions that modules look at when they load."""
    weights = OrderedDict(weights)
    metadata = (restored.rest or {}).get("weights_metadata")
    if metadata is not None:
        private_torch.set_versions(weights, metadata)
    return weights


def _gradients(trainer: Any, parameters: Mapping[str, torch.Tensor], where: Where) -> dict[str, Any]:
    """Gradients that the next optimizer step will use.

    In automatic optimization that is an open accumulation window, and what no optimizer clears; elsewhere the values in
    ``.grad`` are read again by the user's own code at most, but whether there are any matters (an optimizer skips
    parameters without). In manual optimization nobody knows.
    """
    module = trainer.lightning_module
    grads = {name: one.grad for name, one in parameters.items() if one.grad is not None}
    done = trainer.fit_loop.epoch_loop.batch_progress.current.completed
    window_open = where != "between epochs" and done % trainer.accumulate_grad_batches != 0
    read_again = any(private.reads_gradients(one) for one in [module, *trainer.callbacks])
    if window_open or read_again or not module.automatic_optimization:
        return {"values": grads, "present": []}
    cleared = private.in_optimizers(trainer)
    kept = {name for name, one in parameters.items() if id(one) not in cleared}
    return {
        "values": {name: grad for name, grad in grads.items() if name in kept},
        "present": [name for name in grads if name not in kept],
    }


def _put_back_gradients(trainer: Any, grads: Mapping[str, Any]) -> None:
    for name, parameter in trainer.lightning_module.named_parameters():
        if name in grads["values"]:
            parameter.grad = grads["values"][name].to(parameter.device)
        elif name in grads["present"]:
            parameter.grad = _zeros_like(parameter)
        else:
            parameter.grad = None


def _zeros_like(parameter: torch.Tensor) -> torch.Tensor:
    """Zeros that cost nothing until somebody looks, as hardly anybody does: fresh pages are zero."""
    if parameter.device.type != "cpu" or not parameter.is_contiguous() or parameter.nbytes < LARGE:
        return torch.zeros_like(parameter)
    memory = torch.from_numpy(fresh(parameter.nbytes)[: parameter.nbytes])
    return memory.view(parameter.dtype).view(parameter.shape)
