"""``ckpt pin REF`` and ``ckpt unpin REF``: keep a snapshot whatever the rules say, also while the run trains."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from ckpt_callbacks.cli.output import AsJson, Reference, console, describe, emit, errors_in_one_line, marks
from ckpt_callbacks.run import Run, Snapshot, resolve_reference

__all__ = ["pin", "unpin"]

Note = Annotated[str | None, typer.Option("--note", help="Why, for whoever lists the run.")]


@errors_in_one_line
def pin(ref: Reference, note: Note = None, as_json: AsJson = False) -> None:
    """Keep a snapshot whatever the rules say."""
    snapshot = resolve_reference(ref)
    _tell(Run(snapshot.run_path).pin(snapshot.id, note), "pinned", as_json)


@errors_in_one_line
def unpin(ref: Reference, as_json: AsJson = False) -> None:
    """Leave a snapshot to the rules again."""
    snapshot = resolve_reference(ref)
    _tell(Run(snapshot.run_path).unpin(snapshot.id), "unpinned", as_json)


def _tell(snapshot: Snapshot, what: str, as_json: bool) -> None:
    if as_json:
        emit(describe(snapshot, marks(Run(snapshot.run_path))))
    else:
        console().print(Text(f"{what} {snapshot.id}"))
