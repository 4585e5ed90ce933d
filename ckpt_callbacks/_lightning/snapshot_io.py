"""Lets a trainer read snapshots wherever it reads a ``.ckpt``: ``ckpt_path=`` of fit, validate, test and predict."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["install", "names_snapshot"]


def names_snapshot(path: str | Path) -> bool:
    """Whether ``path`` is ours to read: a run, a snapshot's directory, or ``run@...``; not some other checkpoint."""
    text = str(Path(path).expanduser())
    run = Path(text.rpartition("@")[0]) if "@" in text else None
    return any((Path(text) / name).is_file() for name in ("manifest.json", "run.json")) or (
        run is not None and (run / "run.json").is_file()
    )


def install(trainer: Any, package: str, load: Callable[[str | Path], dict[str, Any]]) -> None:
    """Put a reader of snapshots before the trainer's own `CheckpointIO`, once per trainer.

    Args:
        trainer: gets the reader.
        package: ``pytorch_lightning`` or ``lightning.pytorch``.
        load: a reference or path -> the dictionary that Lightning restores from.
    """
    own = trainer.strategy.checkpoint_io
    while isinstance(own, _SnapshotReader):
        own = own.inner
    base = importlib.import_module(f"{package}.plugins").CheckpointIO
    trainer.strategy.checkpoint_io = type("SnapshotIO", (_SnapshotReader, base), {})(own, load)


class _SnapshotReader:
    """Reads snapshots; hands every other call to the `CheckpointIO` that was there."""

    def __init__(self, inner: Any, load: Callable[[str | Path], dict[str, Any]]) -> None:
        super().__init__()
        self.inner = inner
        self._load = load

    def load_checkpoint(self, path: str | Path, *args: Any, **kwargs: Any) -> Any:
        return self._load(path) if names_snapshot(path) else self.inner.load_checkpoint(path, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        self.inner.save_checkpoint(*args, **kwargs)

    def remove_checkpoint(self, path: str | Path) -> None:
        self.inner.remove_checkpoint(path)

    def teardown(self) -> None:
        self.inner.teardown()
