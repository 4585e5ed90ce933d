"""Checkpoint callbacks for PyTorch Lightning and Keras: kill the run anywhere, start it again, end with the same bytes.

The callbacks: `ckpt_callbacks.pytorch_lightning.Checkpointer`, `ckpt_callbacks.lightning.Checkpointer` and
`ckpt_callbacks.keras.Checkpointer`. From here come what they are told - triggers (when to save), rules (what to keep),
`Monitor` (what is best) - and `Run` and `Snapshot`, which read a run without any framework.

Importing this package imports no framework, nor numpy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ckpt_callbacks.engine import (
    Event,
    Moment,
    Monitor,
    Progress,
    every,
    every_batches,
    every_epochs,
    every_steps,
    keep_all,
    keep_best,
    keep_every_steps,
    keep_last,
    keep_log_spaced,
    keep_tiers,
    keep_when,
    keep_within,
    on_best,
    on_end,
    on_exception,
    on_signal,
    weights_after,
    when,
)
from ckpt_callbacks.errors import (
    CheckpointError,
    ConfigurationError,
    CorruptSnapshotError,
    InexactError,
    ResumeError,
    RunLockedError,
    SnapshotNotFoundError,
    StoreError,
    UnreachableError,
    UnstorableError,
)

if TYPE_CHECKING:
    from ckpt_callbacks.run import Run, Snapshot
    from ckpt_callbacks.state import register_codec

__version__ = "0.1.0"

__all__ = [
    "CheckpointError",
    "ConfigurationError",
    "CorruptSnapshotError",
    "Event",
    "InexactError",
    "Moment",
    "Monitor",
    "Progress",
    "ResumeError",
    "Run",
    "RunLockedError",
    "Snapshot",
    "SnapshotNotFoundError",
    "StoreError",
    "UnreachableError",
    "UnstorableError",
    "every",
    "every_batches",
    "every_epochs",
    "every_steps",
    "keep_all",
    "keep_best",
    "keep_every_steps",
    "keep_last",
    "keep_log_spaced",
    "keep_tiers",
    "keep_when",
    "keep_within",
    "on_best",
    "on_end",
    "on_exception",
    "on_signal",
    "register_codec",
    "weights_after",
    "when",
]

# These need numpy: they are loaded when somebody asks for them.
_LAZY = {"Run": "ckpt_callbacks.run", "Snapshot": "ckpt_callbacks.run", "register_codec": "ckpt_callbacks.state"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
