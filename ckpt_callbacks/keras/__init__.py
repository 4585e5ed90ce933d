"""The callback for Keras 3 (TensorFlow, PyTorch and JAX backends).

::

    from ckpt_callbacks.keras import Checkpointer

    model.fit(x, y, epochs=20, callbacks=[Checkpointer("runs/digits", monitor="val_loss")])

``hooks``       the callback's hooks, handed on; nothing is decided here
``fit``         one `model.fit`: hooks -> Moments, and the snapshot put back
``epochs``      the epoch iterator that remembers how its iterator began, and replays it
``sources``     what is known of the data behind a fit: how often iterated, what a PyDataset remembers
``validation``  what validations leave behind in their data
``live``        attributes of the other callbacks, and of a model that runs eagerly
``state``       model, optimizer, metrics, live objects -> state, and back
``weights``     snapshots -> models, without a fit
``private``     every private attribute of Keras that is touched, with the reason and the version it was read from
"""

from __future__ import annotations

from ckpt_callbacks.keras.hooks import Checkpointer
from ckpt_callbacks.keras.weights import load_weights

__all__ = ["Checkpointer", "load_weights"]
