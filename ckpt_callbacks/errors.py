"""What can go wrong, as a tree.

::

    CheckpointError
    ├── ConfigurationError      an argument that can't work, found at construction (also a ValueError)
    ├── UnstorableError         a value that can't be kept without pickle, with its path in the state (also a TypeError)
    │   └── InexactError            exact="require", and a resume would lack something that it names
    ├── ResumeError             a snapshot that doesn't fit the run that should carry on from it
    └── StoreError              what lies on disk
        ├── CorruptSnapshotError     bytes that differ from what the manifest promises
        ├── UnreachableError         bytes that can't be read now, and may be good (permissions, a newer format)
        ├── SnapshotNotFoundError    a reference that names nothing (also a LookupError)
        └── RunLockedError           another process writes to this run
"""

from __future__ import annotations

__all__ = [
    "CheckpointError",
    "ConfigurationError",
    "CorruptSnapshotError",
    "InexactError",
    "ResumeError",
    "RunLockedError",
    "SnapshotNotFoundError",
    "StoreError",
    "UnreachableError",
    "UnstorableError",
]


class CheckpointError(Exception):
    """Base of every error this package raises on purpose."""


class ConfigurationError(CheckpointError, ValueError):
    """An argument that can't work; raised where it is given, before any training."""


class UnstorableError(CheckpointError, TypeError):
    """A state holds values that are neither tensors nor plain data.

    ``paths`` maps the path of each offending leaf, such as ``callbacks['Mine'].handle``, to what was found there.
    """

    def __init__(self, paths: dict[str, str]) -> None:
        self.paths = dict(paths)
        found = "\n".join(f"  {path}: {what}" for path, what in self.paths.items())
        super().__init__(
            f"{len(self.paths)} value(s) can't be stored without pickle:\n{found}\n"
            "Expected tensors, numbers, strings, bytes, None and dicts, lists, tuples or sets of them. "
            "Remove the value from the state, or register a codec for its type with ckpt_callbacks.register_codec()."
        )


class InexactError(UnstorableError):
    """``exact="require"``, and a resume would not be exact: ``paths`` maps each part to the reason and the remedy."""

    def __init__(self, paths: dict[str, str]) -> None:
        self.paths = dict(paths)
        found = "\n".join(f"  {path}: {why}" for path, why in self.paths.items())
        TypeError.__init__(
            self,
            f"a resume of this run would not be exact, but exact='require' asks for it:\n{found}\n"
            "Change what is named, or pass exact='warn' to train with a resume that is as near as it can be.",
        )


class ResumeError(CheckpointError):
    """A snapshot doesn't fit the run that should carry on from it; the message names what differs."""


class StoreError(CheckpointError):
    """Something about the files of a run is not as it must be."""


class CorruptSnapshotError(StoreError):
    """A file is missing, has another size or other bytes than its manifest promises, or can't be parsed."""


class UnreachableError(StoreError):
    """A file can't be read now, which says nothing of its bytes: nothing was changed. The message names the cause, such
    as a permission, a disk that is away, or a newer format."""


class SnapshotNotFoundError(StoreError, LookupError):
    """A reference such as ``runs/a@best`` names no committed snapshot."""


class RunLockedError(StoreError):
    """Another live process writes to this run."""
