"""``ckpt show REF``: all that is known of one snapshot."""

from __future__ import annotations

import json
import math
import shlex
from collections import Counter
from typing import Any

from rich.table import Table
from rich.text import Text

from ckpt_callbacks.cli.output import (
    ABANDONED,
    AsJson,
    Reference,
    age,
    console,
    describe,
    emit,
    errors_in_one_line,
    marks,
    number,
    pairs,
)
from ckpt_callbacks.run import Run, Snapshot, human_size, resolve_reference

__all__ = ["show"]

LISTED = 12


@errors_in_one_line
def show(ref: Reference, as_json: AsJson = False) -> None:
    """Show one snapshot: its state, files, tensors and where it comes from."""
    snapshot = resolve_reference(ref)
    tensors = _tensors(snapshot)
    if as_json:
        emit(_document(snapshot, tensors))
        return
    screen = console()
    screen.print(Text(snapshot.id, style="bold"), Text("in"), Text(str(snapshot.run_path)))
    screen.print(pairs(_facts(snapshot)))
    screen.print(Text("\nfiles", style="bold"), Text(human_size(snapshot.size)))
    screen.print(_file_table(snapshot))
    screen.print(Text("\ntensors", style="bold"), Text(_totals(tensors)))
    screen.print(_tensor_table(tensors))


def _document(snapshot: Snapshot, tensors: list[dict[str, Any]]) -> dict[str, Any]:
    manifest, run = snapshot.manifest, _run_of(snapshot)
    return {
        **describe(snapshot, marks(run)),
        "abandoned": run is not None and snapshot.id in run.abandoned(),
        "framework": manifest.framework,
        "finished": manifest.finished,
        "monitors": [dict(monitor) for monitor in manifest.monitors],
        "versions": dict(manifest.versions),
        "provenance": dict(manifest.provenance),
        "past": dict(manifest.past),
        "files": {name: {"size": info.size, "digest": info.digest} for name, info in manifest.files.items()},
        "tensors": tensors,
        "parameters": sum(tensor["elements"] for tensor in tensors),
    }


def _run_of(snapshot: Snapshot) -> Run | None:
    """The run around a snapshot; None for a directory that was copied out of one."""
    run = Run(snapshot.run_path) if (snapshot.run_path / "snapshots").is_dir() else None
    return run if run and any(one.path == snapshot.path for one in run.snapshots()) else None


def _facts(snapshot: Snapshot) -> dict[str, str | Text | None]:
    manifest, progress = snapshot.manifest, snapshot.progress
    run = _run_of(snapshot)
    distinct = [name for name, id in marks(run).items() if id == snapshot.id] + ["pinned"] * snapshot.pinned
    git = manifest.provenance.get("git") or {}
    command = manifest.provenance.get("command") or []
    pin_note = run.pins().get(snapshot.id) if run else None
    return {
        "progress": f"step {progress.step} · epoch {progress.epoch} · batch {progress.batch}"
        f" · {progress.batches} batches in all{' · finished' if manifest.finished else ''}",
        "created": f"{snapshot.created:%Y-%m-%d %H:%M:%S} UTC ({age(snapshot.created)} ago)",
        "trained": f"{manifest.elapsed:.1f} s",
        "reasons": ", ".join(snapshot.reasons),
        "is": ", ".join(distinct),
        "content": snapshot.content,
        "not healthy": manifest.unhealthy,
        "line": ABANDONED if run and snapshot.id in run.abandoned() else None,
        "metrics": "\n".join(f"{name} {number(value)}" for name, value in snapshot.metrics.items()),
        "note": snapshot.note,
        "pin note": pin_note,
        "sequence": str(manifest.sequence),
        "parent": manifest.parent,
        "framework": manifest.framework,
        "versions": ", ".join(f"{name} {version}" for name, version in manifest.versions.items()),
        "git": " ".join(str(git[name]) for name in ("commit", "branch") if name in git) if git else None,
        "command": shlex.join(map(str, command)) if isinstance(command, list) else str(command),
        **{name: json.dumps(value) for name, value in manifest.extra.items()},
    }


def _file_table(snapshot: Snapshot) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(overflow="fold")
    table.add_column(justify="right", no_wrap=True)
    table.add_column(style="dim", no_wrap=True, overflow="ellipsis")
    for name, info in snapshot.manifest.files.items():
        table.add_row(name, human_size(info.size), info.digest)
    return table


def _tensors(snapshot: Snapshot) -> list[dict[str, Any]]:
    """Name, element type, shape and sizes of the model's tensors, from the header alone."""
    return [
        {
            "name": name,
            "dtype": host.dtype,
            "shape": list(host.shape),
            "elements": math.prod(host.shape),
            "bytes": host.nbytes,
        }
        for file in snapshot.weight_files()
        for name, host in file.items()
    ]


def _totals(tensors: list[dict[str, Any]]) -> str:
    kinds = Counter(tensor["dtype"] for tensor in tensors)
    elements = sum(tensor["elements"] for tensor in tensors)
    size = human_size(sum(tensor["bytes"] for tensor in tensors))
    listed = [f"{count} {kind}" for kind, count in kinds.most_common()]
    return f"{', '.join(listed) or 'none'} · {elements:,} elements · {size}"


def _tensor_table(tensors: list[dict[str, Any]]) -> Table:
    """The largest ones."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(overflow="fold")
    table.add_column(no_wrap=True)
    table.add_column(justify="right", overflow="fold")
    table.add_column(justify="right", no_wrap=True)
    for tensor in sorted(tensors, key=lambda tensor: -tensor["bytes"])[:LISTED]:
        shape = " x ".join(map(str, tensor["shape"])) or "scalar"
        table.add_row(tensor["name"], tensor["dtype"], shape, human_size(tensor["bytes"]))
    if len(tensors) > LISTED:
        table.add_row(Text(f"and {len(tensors) - LISTED} smaller ones (--json lists all)", style="dim"))
    return table
