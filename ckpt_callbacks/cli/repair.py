"""``ckpt repair RUN``: set damaged snapshots aside, bring back those that are whole again, renew the rest."""

from __future__ import annotations

import typer
from rich.text import Text

from ckpt_callbacks.cli.output import AsJson, Directory, console, emit, errors_in_one_line
from ckpt_callbacks.run import Repair, Run

__all__ = ["repair"]


@errors_in_one_line
def repair(run: Directory, as_json: AsJson = False) -> None:
    """Set damaged snapshots aside (nothing is deleted), bring back those that are whole again, renew links.

    Exit code 1 if something is wrong still; each problem is named.
    """
    found = Run(run)
    done = found.repair()
    if as_json:
        emit(
            {
                "run": str(found.path),
                "removed": list(done.removed),
                "aside": {id: str(path) for id, path in done.aside.items()},
                "back": list(done.back),
                "forgiven": list(done.forgiven),
                "linked": dict(done.linked),
                "renewed": done.renewed,
                "left": [{"snapshot": problem.snapshot, "problem": problem.text} for problem in done.left],
            }
        )
    else:
        for line in _lines(done):
            console().print(Text(line), soft_wrap=True)
    if done.left:
        raise typer.Exit(1)


def _lines(done: Repair) -> list[str]:
    return [
        *(f"removed {name}, which a crash had left" for name in done.removed),
        *(f"set {id} aside: {path}" for id, path in done.aside.items()),
        *(f"brought {id} back" for id in done.back),
        *(f"{id} is tried again: processes had died while they loaded it" for id in done.forgiven),
        *(["run.json is written anew"] if done.renewed else []),
        *(f"{name} points at {id} now" for name, id in done.linked.items()),
        *(f"left as it is: {problem}" for problem in done.left),
    ] or ["nothing to repair"]
