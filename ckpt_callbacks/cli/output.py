"""How every command speaks: tables and JSON on standard output, errors in one line on standard error."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, ParamSpec, TypeVar

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from ckpt_callbacks.errors import CheckpointError
from ckpt_callbacks.messages import printable
from ckpt_callbacks.run import Run, Snapshot
from ckpt_callbacks.store.manifest import finite

__all__ = [
    "AsJson",
    "Directory",
    "Reference",
    "age",
    "console",
    "describe",
    "emit",
    "errors_in_one_line",
    "marks",
    "number",
    "pairs",
]

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON with stable names instead of a table.")]

Directory = Annotated[str, typer.Argument(metavar="RUN", help="A run's directory.")]
Reference = Annotated[
    str,
    typer.Argument(metavar="REF", help="RUN, RUN@best, RUN@latest, RUN@STEP, RUN@ID or a snapshot's directory."),
]

ABANDONED = "abandoned when training went back: never the best"

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")
_AGES = ((86400 * 365, "y"), (86400, "d"), (3600, "h"), (60, "min"))


def errors_in_one_line(command: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Turn what a user can get wrong, and what a disk can, into one line on standard error and exit code 2."""

    @functools.wraps(command)
    def wrapped(*arguments: _Arguments.args, **options: _Arguments.kwargs) -> _Result:
        try:
            return command(*arguments, **options)
        except BrokenPipeError:  # `ckpt ls | head`: typer knows what to do
            raise
        except (CheckpointError, OSError) as error:
            typer.echo(f"ckpt: {printable(' '.join(str(error).split()))}", err=True)
            raise typer.Exit(2) from None

    return wrapped


class _Screen(Console):
    """Whatever a file says, and whatever a file is called: it is printed, and does nothing else to a terminal."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


def console() -> Console:
    """Where tables go: 80 columns, or the terminal's width."""
    return _Screen(highlight=False, markup=False, emoji=False)


def emit(document: Mapping[str, Any]) -> None:
    """Print a JSON document."""
    typer.echo(json.dumps(finite(dict(document)), indent=2))


def marks(run: Run | None) -> dict[str, str]:
    """What ``best`` and ``latest`` name in a run now -> ids; without a run, nothing."""
    found = {"best": run.best(), "latest": run.latest} if run else {}
    return {name: snapshot.id for name, snapshot in found.items() if snapshot is not None}


def describe(snapshot: Snapshot, marks: Mapping[str, str]) -> dict[str, Any]:
    """A snapshot as JSON, the same members in every command."""
    manifest = snapshot.manifest
    return {
        "id": snapshot.id,
        "sequence": manifest.sequence,
        "step": snapshot.step,
        "epoch": snapshot.epoch,
        "batch": snapshot.progress.batch,
        "batches": snapshot.progress.batches,
        "metrics": dict(snapshot.metrics),
        "reasons": list(snapshot.reasons),
        "content": snapshot.content,
        "created": snapshot.created.isoformat(timespec="microseconds"),
        "elapsed": manifest.elapsed,
        "size": snapshot.size,
        "note": snapshot.note,
        "parent": manifest.parent,
        "pinned": snapshot.pinned,
        "unhealthy": manifest.unhealthy,
        "best": marks.get("best") == snapshot.id,
        "latest": marks.get("latest") == snapshot.id,
        "path": str(snapshot.path),
    }


def pairs(rows: Mapping[str, str | Text | None]) -> Table:
    """Names and values, one a line; what is None or empty is left out."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        if value:
            table.add_row(name, value)
    return table


def number(value: float | None) -> str:
    """A metric for people: four digits that count."""
    if value is None:
        return ""
    return f"{value:.4g}" if math.isfinite(value) else str(value)


def age(created: datetime) -> str:
    """How long ago, in the largest unit that is full: ``"3 min"``."""
    seconds = max(0, int((datetime.now(UTC) - created).total_seconds()))
    for length, unit in _AGES:
        if seconds >= length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"
