"""Everything that touches PyTorch Lightning, for `pytorch_lightning` and `lightning.pytorch` alike.

``hooks``    the callback's hooks -> Moments; nothing is decided here
``loader``   the train loader that remembers how its epoch began, and replays it
``state``    trainer -> state, state -> trainer
``private``  every private attribute of Lightning that is touched, with the reason and the version it was read from
"""
