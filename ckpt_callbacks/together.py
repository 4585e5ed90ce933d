"""Together: what several checkpointers that watch one fit do as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ckpt_callbacks.checkpointer import BaseCheckpointer
from ckpt_callbacks.errors import CheckpointError
from ckpt_callbacks.messages import say
from ckpt_callbacks.resume import Restored

__all__ = ["begin", "rest", "resumed_at"]


def begin(
    checkpointers: Sequence[BaseCheckpointer],
    versions: Mapping[str, str],
    devices: Mapping[str, str],
    *,
    load: str | Path | None = None,
) -> tuple[BaseCheckpointer, Restored] | None:
    """Begin a fit that several checkpointers watch: each remembers its own past, the farthest snapshot gives the state.

    Returns:
        The snapshot to carry on from and whose it is, or None.

    Raises:
        As `BaseCheckpointer.begin`; none of them holds its run then.
    """
    try:
        begun = [(one, one.begin(versions, devices, load=load)) for one in checkpointers]
    except CheckpointError:
        for one in checkpointers:
            one.end()
        raise
    found = [(one, restored) for one, restored in begun if restored is not None]
    for one, restored in found:
        if one.directory in one.ended and not restored.named:
            say(
                f"an earlier fit of this process ended in {one.directory}, and this one carries it on: "
                "a fit that shall begin anew needs a directory of its own"
            )
    return max(found, key=lambda pair: pair[1].snapshot.progress.batches, default=None)


def resumed_at(
    checkpointers: Sequence[BaseCheckpointer], owner: BaseCheckpointer, restored: Restored, **how: Any
) -> None:
    """The state is back in the framework. The owner of its snapshot tells, with ``how`` as of its `resumed_at`."""
    for one in checkpointers:
        if one is not owner:
            one.arrived()
    owner.resumed_at(restored, **how)


def rest(checkpointers: Sequence[BaseCheckpointer], step: int, batches: int) -> bool:
    """Whether none of them can have anything to do at a boundary before which nothing happened: see their `rests`."""
    for one in checkpointers:  # noqa: SIM110 - a generator would take as long as all else
        if not one.rests(step, batches):
            return False
    return True
