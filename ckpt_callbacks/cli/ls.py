"""``ckpt ls RUN``: the snapshots of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import accumulate
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from ckpt_callbacks.cli.output import (
    ABANDONED,
    AsJson,
    age,
    console,
    describe,
    emit,
    errors_in_one_line,
    marks,
    number,
    pairs,
)
from ckpt_callbacks.run import Run, Snapshot, human_size
from ckpt_callbacks.store import owner_of

__all__ = ["ls"]

FIXED = 48  # columns that id, step, epoch, size and age take, at most
REASONS = 20  # columns that the reasons need to be readable


@errors_in_one_line
def ls(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's directory.")],
    dropped: Annotated[bool, typer.Option("--dropped", help="Also tell which are gone, and why.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the snapshots of a run, oldest first."""
    found = Run(run)
    gone = found.dropped() if dropped else None
    if as_json:
        _as_json(found, gone)
        return
    _as_table(run, found)
    if gone is not None:
        _tell_dropped(gone)


def _as_json(run: Run, gone: Mapping[str, str] | None) -> None:
    owner, named, kept_by, abandoned = owner_of(run.path), marks(run), run.kept_by(), run.abandoned()
    emit(
        {
            "run": str(run.path),
            "run_id": run.id,
            "monitors": [monitor.as_dict() for monitor in run.monitors],
            "in_use_by": {**asdict(owner), "alive": owner.alive} if owner else None,
            "snapshots": [
                {
                    **describe(snapshot, named),
                    "abandoned": snapshot.id in abandoned,
                    "kept_by": list(kept_by.get(snapshot.id, ())),
                }
                for snapshot in run.snapshots()
            ],
            "unreadable": run.unreadable(),
            **({} if gone is None else {"dropped": dict(gone)}),
        }
    )


def _as_table(name: str, run: Run) -> None:
    screen = console()
    snapshots = run.snapshots()
    monitors = run.monitors
    best_by = f" · best by {monitors[0].metric} ({monitors[0].mode})" if monitors else ""
    count = f"{len(snapshots)} snapshot{'' if len(snapshots) == 1 else 's'}"
    screen.print(
        Text(name, style="bold"),
        Text(f"{count} · {human_size(sum(snapshot.size for snapshot in snapshots))}{best_by}"),
    )
    if owner := owner_of(run.path):
        screen.print(Text(f"in use by {owner}", style="cyan"))
    if snapshots:
        screen.print(_table(run, snapshots, _metrics(run, snapshots, screen.width - FIXED - REASONS)))
    for id, why in run.unreadable().items():
        screen.print(Text(f"{id} can't be listed: {why}", style="red"))


def _table(run: Run, snapshots: list[Snapshot], metrics: list[str]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("id", no_wrap=True)
    for title in ("step", "epoch", *metrics, "size", "age"):
        table.add_column(title, justify="right", no_wrap=title not in metrics, overflow="fold")
    table.add_column("why", overflow="fold")
    named, kept_by, abandoned = marks(run), run.kept_by(), run.abandoned()
    for snapshot in snapshots:
        table.add_row(
            snapshot.id,
            str(snapshot.step),
            str(snapshot.epoch),
            *(number(snapshot.metrics.get(name)) for name in metrics),
            human_size(snapshot.size),
            age(snapshot.created),
            _why(snapshot, named, kept_by.get(snapshot.id, ()), snapshot.id in abandoned),
        )
    return table


def _metrics(run: Run, snapshots: list[Snapshot], room: int) -> list[str]:
    """The metrics that get a column: the monitored ones, then others, as many as fit; one in any case."""
    monitored = [monitor.metric for monitor in run.monitors]
    measured = [name for snapshot in reversed(snapshots) for name in snapshot.metrics]
    names = list(dict.fromkeys(name for name in [*monitored, *measured] if name in measured))
    used = list(accumulate(1 + max(len(name), 6) for name in names))
    return [name for name, end in zip(names, used, strict=True) if end <= room] or names[:1]


def _tell_dropped(gone: Mapping[str, str]) -> None:
    screen = console()
    screen.print(Text(f"dropped: {len(gone)}", style="bold"))
    if gone:
        screen.print(pairs(gone))


def _why(snapshot: Snapshot, named: Mapping[str, str], kept_by: Sequence[str], abandoned: bool) -> Text:
    """What distinguishes a snapshot, why it was saved, and why it is still there."""
    distinct = [name for name, id in named.items() if id == snapshot.id]
    distinct += ["pinned"] if snapshot.pinned else []
    distinct += ["weights only"] if snapshot.content == "weights" else []
    lines = [Text(" ".join(distinct), "bold green")] if distinct else []
    lines += [Text(ABANDONED, "bold yellow")] if abandoned else []
    lines += [Text(snapshot.manifest.unhealthy, "bold red")] if snapshot.manifest.unhealthy else []
    lines += [Text(reason) for reason in snapshot.reasons]
    lines += [Text(f"kept: {', '.join(kept_by)}", "dim")] if kept_by else []
    return Text("\n").join(lines)
