"""``ckpt request RUN``: ask the process that trains in a run to save now."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from ckpt_callbacks.cli.output import AsJson, Directory, emit, errors_in_one_line
from ckpt_callbacks.messages import printable
from ckpt_callbacks.run import Run
from ckpt_callbacks.store import owner_of

__all__ = ["request"]

INTERVAL = 0.2


@errors_in_one_line
def request(
    run: Directory,
    note: Annotated[str | None, typer.Option("--note", help="What the snapshot is for.")] = None,
    stop: Annotated[bool, typer.Option("--stop", help="End training after it; the same command carries on.")] = False,
    timeout: Annotated[
        float, typer.Option("--timeout", help="Seconds to wait for it; 0 doesn't wait: whoever trains next will save.")
    ] = 60.0,
    as_json: AsJson = False,
) -> None:
    """Ask the process that trains in RUN, wherever it is, to save at its next clean boundary."""
    found = Run(run)
    owner = owner_of(found.path)
    if not as_json:
        whom = str(owner) if owner else "whoever trains there (no live process is known to this machine)"
        typer.echo(f"asking {printable(whom)}", err=True)
    name = found.request(note, stop=stop, wants_answer=timeout > 0)
    outcome = _wait(found, name, timeout) if timeout > 0 else {}
    if as_json:
        emit({"run": str(found.path), "request": name, **(outcome or {"error": "no answer"})})
    elif outcome and "id" in outcome:
        typer.echo(f"saved {printable(str(outcome['id']))}")
    if outcome is None or "error" in outcome:
        why = outcome["error"] if outcome else f"no answer in {timeout:g} s; the request is withdrawn"
        typer.echo(f"ckpt: {printable(why)}", err=True)
        raise typer.Exit(1)


def _wait(run: Run, name: str, timeout: float) -> Mapping[str, Any] | None:
    deadline = time.monotonic() + timeout
    try:
        while time.monotonic() < deadline:
            outcome = run.outcome(name)
            if outcome is not None:
                return outcome
            time.sleep(INTERVAL)
    finally:  # also after Ctrl-C
        run.withdraw(name)
    return run.outcome(name)
