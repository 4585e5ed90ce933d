"""The command line ``ckpt``: look at runs and snapshots, and tidy them up, without any framework.

Every command takes ``--json``: then standard output holds one JSON document with stable names and nothing else. Errors
are one line on standard error. Exit codes: 0 all is well, 1 a check found something, 2 the command could not be done.
"""

from __future__ import annotations

import io
import sys

import typer

from ckpt_callbacks.cli.explain import explain
from ckpt_callbacks.cli.ls import ls
from ckpt_callbacks.cli.pin import pin, unpin
from ckpt_callbacks.cli.prune import prune
from ckpt_callbacks.cli.repair import repair
from ckpt_callbacks.cli.request import request
from ckpt_callbacks.cli.show import show
from ckpt_callbacks.cli.simulate import simulate
from ckpt_callbacks.cli.verify import verify

__all__ = ["app", "main"]

app = typer.Typer(
    name="ckpt",
    help="Look at runs and their snapshots, tidy them up, and ask live ones to save.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for _command in (ls, show, verify, explain, pin, unpin, prune, repair, request, simulate):
    app.command()(_command)


def main() -> None:
    """Run the command line; the entry point of the ``ckpt`` program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that knows ASCII only gets all but a few signs
    app(prog_name="ckpt")
