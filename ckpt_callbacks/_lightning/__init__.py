"""Everything that touches PyTorch Lightning, for `pytorch_lightning` and `lightning.pytorch` alike.

``hooks``        the callback's hooks, handed on; nothing is decided here
``fit``          one `Trainer.fit`: hooks -> Moments, and the snapshot put back
``loader``       the train loader that remembers how its epoch began, and replays it
``snapshot_io``  snapshots wherever a trainer reads a ``.ckpt``
``state``        trainer -> state, state -> trainer
``private``      every private attribute of Lightning that is touched, with the reason and the version it was read from
"""
