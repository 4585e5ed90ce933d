"""``ckpt verify RUN_OR_REF``: compare files with what their manifests promise."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from ckpt_callbacks.cli.output import AsJson, console, emit, errors_in_one_line
from ckpt_callbacks.errors import CorruptSnapshotError, SnapshotNotFoundError
from ckpt_callbacks.run import Problem, Run, Verification, resolve_reference

__all__ = ["verify"]


@errors_in_one_line
def verify(
    target: Annotated[
        str, typer.Argument(metavar="RUN_OR_REF", help="A run (all its snapshots), or a reference to one snapshot.")
    ],
    quick: Annotated[bool, typer.Option("--quick", help="Compare names and sizes, read no data.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check that every byte is as it was written. Exit code 1 if not; each problem is named."""
    found = _verify(target, full=not quick)
    if as_json:
        emit(
            {
                "ok": found.ok,
                "full": found.full,
                "checked": list(found.checked),
                "strangers": list(found.strangers),
                "notes": list(found.notes),
                "problems": [{"snapshot": problem.snapshot, "problem": problem.text} for problem in found.problems],
            }
        )
    else:
        console().print(Text(str(found), style="green" if found.ok else "red"), soft_wrap=True)
    if not found.ok:
        raise typer.Exit(1)


def _verify(target: str, *, full: bool) -> Verification:
    try:
        run = Run(target)
    except SnapshotNotFoundError:
        run = None
    if run is not None:
        return run.verify(full=full)
    try:
        return resolve_reference(target).verify(full=full)
    except CorruptSnapshotError as error:  # it is there, and its manifest is what is wrong with it
        name = target.rpartition("@")[2] if "@" in target else Path(target).name
        return Verification((name,), (Problem(name, str(error)),), full)
