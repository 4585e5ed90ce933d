"""The callback for `pytorch_lightning`.

::

    from ckpt_callbacks.pytorch_lightning import Checkpointer

    trainer = pl.Trainer(callbacks=[Checkpointer("runs/digits", monitor="val_loss")])
"""

from __future__ import annotations

from pytorch_lightning.callbacks import Checkpoint

from ckpt_callbacks._lightning.hooks import LightningHooks

__all__ = ["Checkpointer"]


class Checkpointer(LightningHooks, Checkpoint):
    """Saves, keeps and restores snapshots of a `pytorch_lightning.Trainer.fit`.

    Takes the arguments of `ckpt_callbacks.checkpointer.BaseCheckpointer`.
    """

    framework = "pytorch_lightning"
    package = "pytorch_lightning"
