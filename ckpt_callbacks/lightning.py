"""The callback for `lightning.pytorch` (`import lightning as L`).

::

    from ckpt_callbacks.lightning import Checkpointer

    trainer = L.Trainer(callbacks=[Checkpointer("runs/digits", monitor="val_loss")])
"""

from __future__ import annotations

from lightning.pytorch.callbacks import Checkpoint

from ckpt_callbacks._lightning.hooks import LightningHooks

__all__ = ["Checkpointer"]


class Checkpointer(LightningHooks, Checkpoint):
    """Saves, keeps and restores snapshots of a `lightning.pytorch.Trainer.fit`.

    Takes the arguments of `ckpt_callbacks.checkpointer.BaseCheckpointer`.
    """

    framework = "lightning"
    package = "lightning.pytorch"
