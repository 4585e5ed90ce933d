"""Which tensors stay as they are from a boundary until an optimizer is applied: they may be copied beside training.

On torch only, which counts changes. TensorFlow would copy what somebody holds in its own next step, and JAX makes other
arrays anyway. The conditions are those of Lightning's adapter, and err on the same side.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from ckpt_callbacks.keras import private
from ckpt_callbacks.state.objects.uncounted import held_by, is_countable, is_trusted, may_go_uncounted

__all__ = ["steady_tensors"]

# The methods that run from a boundary until the batch is done; others run if one of these names them.
_RUNS = re.compile(
    r"train_step|call|forward|backward|setup_context|compute_(loss|metrics)|update_state|result|(?!__init__)__\w+__"
    r"|on_(train_)?batch_(begin|end)|regularizer|get_config"
)
_TRUSTED = ("keras", "torch", "numpy", "ckpt_callbacks")
# Keras' callbacks that change weights, or call functions of the user's.
_MEDDLING = (keras.callbacks.SwapEMAWeights, keras.callbacks.LambdaCallback)


def steady_tensors(model: Any, callbacks: Sequence[Any]) -> Mapping[int, Any]:
    """Address -> tensor, of the variables and moments that are worth it; none at all if anything speaks against it.

    Args:
        model: being fitted.
        callbacks: all of fit's but ours.
    """
    if keras.backend.backend() != "torch":
        return {}
    optimizers = private.models.optimizers_of(model)
    variables = [*model.trainable_variables, *(one for each in optimizers for one in each.variables)]
    worth = [one for one in map(private.variables.backing, variables) if is_countable(one)]
    if not worth or model.jit_compile or not _is_known(model, optimizers, callbacks):
        return {}
    return {one.data_ptr(): one for one in worth}


def _is_known(model: Any, optimizers: Sequence[Any], callbacks: Sequence[Any]) -> bool:
    parts = private.models.parts_that_compute(model).values()
    actors = [*(one for one in parts if one not in optimizers), *private.models.functions_of(model), *callbacks]
    actors += private.models.hooks_of(model)
    held = [one for actor in actors for one in held_by(actor, _TRUSTED)]
    return (
        all(is_trusted(type(optimizer), _TRUSTED) for optimizer in optimizers)
        and not any(isinstance(one, keras.optimizers.Optimizer) and one not in optimizers for one in held)
        and not any(isinstance(one, _MEDDLING) for one in callbacks)
        and not may_go_uncounted(actors, _RUNS, _TRUSTED)
    )
