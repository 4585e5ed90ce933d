"""``ckpt prune RUN``: apply retention rules to a run that does not train."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from ckpt_callbacks.cli.output import ABANDONED, AsJson, Directory, console, emit, errors_in_one_line
from ckpt_callbacks.engine import Verdict, parse_rules
from ckpt_callbacks.errors import ConfigurationError
from ckpt_callbacks.run import Run, Snapshot, human_size

__all__ = ["document_of", "judgement", "prune"]

Keep = Annotated[
    str | None,
    typer.Option("--keep", help="Rules, such as \"keep_last(2), keep_best(1, 'val_loss')\"; default: the run's own."),
]


@errors_in_one_line
def prune(
    run: Directory,
    keep: Keep = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go, and why.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete what no rule keeps, and reduce to weights what a rule says so of."""
    found = Run(run)
    snapshots, abandoned = found.snapshots(), found.abandoned()
    verdict = found.prune(parse_rules(keep) if keep else None, dry_run=dry_run)
    freed = sum(snapshot.size for snapshot in snapshots if snapshot.id in verdict.drop)
    if as_json:
        emit({"run": str(found.path), "dry_run": dry_run, "freed": freed, **document_of(verdict, abandoned)})
        return
    screen = console()
    screen.print(judgement(snapshots, verdict, abandoned))
    count = f"{len(verdict.drop)} snapshot{'' if len(verdict.drop) == 1 else 's'}, {human_size(freed)}"
    screen.print(Text(f"{'would drop' if dry_run else 'dropped'} {count}", style="bold"))
    if not keep and (refusal := _refusal(found)):
        screen.print(Text(f"without --keep nothing is pruned: {refusal}"))


def judgement(snapshots: list[Snapshot], verdict: Verdict, abandoned: Collection[str]) -> Table:
    """Who stays, who goes, and why."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    for title in ("id", "step", "size"):
        table.add_column(title, no_wrap=True, justify="left" if title == "id" else "right")
    table.add_column("")
    table.add_column("why", overflow="fold")
    for snapshot in snapshots:
        what, why = _of(snapshot.id, verdict)
        style = {"keep": "green", "weights": "yellow"}.get(what, "red")
        table.add_row(
            snapshot.id,
            str(snapshot.step),
            human_size(snapshot.size),
            Text(what, style),
            f"{ABANDONED}; {why}" if snapshot.id in abandoned else why,
        )
    return table


def document_of(verdict: Verdict, abandoned: Collection[str]) -> dict[str, object]:
    """The same, as JSON."""
    return {
        "keep": {id: list(why) for id, why in verdict.keep.items()},
        "drop": dict(verdict.drop),
        "demote": dict(verdict.demote),
        "abandoned": sorted(abandoned),
        "exceeded": list(verdict.exceeded),
    }


def _refusal(run: Run) -> str | None:
    """Why a run can't be pruned by its own rules, if it can't."""
    try:
        run.rules  # noqa: B018
    except ConfigurationError as error:
        return str(error)
    return None


def _of(id: str, verdict: Verdict) -> tuple[str, str]:
    if id in verdict.demote:
        return "weights", f"{verdict.demote[id]}; kept: {', '.join(verdict.keep[id])}"
    if id in verdict.keep:
        return "keep", ", ".join(verdict.keep[id])
    return "drop", verdict.drop.get(id, "it came meanwhile")
