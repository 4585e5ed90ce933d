"""``ckpt simulate``: what a policy would save and keep over a run, before it is launched."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from ckpt_callbacks.cli.output import AsJson, console, emit, errors_in_one_line, number
from ckpt_callbacks.engine import (
    Monitor,
    Rule,
    Simulation,
    Trigger,
    parse_rules,
    parse_trigger,
    resolve_monitors,
    resolve_rules,
    resolve_triggers,
)
from ckpt_callbacks.engine import simulate as imagine
from ckpt_callbacks.engine.units import bytes_of, human_seconds, seconds_of
from ckpt_callbacks.errors import ConfigurationError
from ckpt_callbacks.run import human_size

__all__ = ["simulate"]

WIDTH, ROWS, LISTED = 64, 10, 30
_BARS = " ▁▂▃▄▅▆▇█"


@errors_in_one_line
def simulate(
    steps: Annotated[int, typer.Option("--steps", min=1, help="Optimizer steps of the run.")],
    save: Annotated[str | None, typer.Option("--save", help="Triggers, as in Checkpointer(save=...).")] = None,
    keep: Annotated[str | None, typer.Option("--keep", help="Rules, as in Checkpointer(keep=...).")] = None,
    step_time: Annotated[str, typer.Option("--step-time", help="How long a step takes, such as 0.5s.")] = "1s",
    epoch_steps: Annotated[int, typer.Option("--epoch-steps", min=1, help="Steps in an epoch.")] = 1000,
    size: Annotated[str, typer.Option("--size", help="Of a full snapshot, such as '1.2 GB'.")] = "1 GB",
    weights: Annotated[float, typer.Option("--weights", min=0, max=1, help="The weights' share of it.")] = 1 / 3,
    monitor: Annotated[str | None, typer.Option("--monitor", help="A metric that each epoch measures.")] = None,
    mode: Annotated[str, typer.Option("--mode", help="min, max or auto.")] = "auto",
    as_json: AsJson = False,
) -> None:
    """Show what a policy would save and keep over a run, and how many bytes that takes.

    Every epoch ends with a validation whose metrics improve less and less, not always.
    """
    monitors = resolve_monitors(monitor, mode)
    trigger, rules = _bound(save, keep, monitors)
    measured = {one.metric: one for one in (*trigger.monitors, *_named(keep), *monitors)}
    seconds, nbytes = seconds_of(step_time, "--step-time"), bytes_of(size, "--size")
    found = imagine(
        trigger,
        rules,
        steps=steps,
        step_time=seconds,
        size=nbytes,
        epoch_steps=epoch_steps,
        weights_share=weights,
        monitors=tuple(measured.values()),
    )
    if as_json:
        _as_json(found)
        return
    screen = console()
    screen.print(Text("saves", style="bold"), Text(trigger.words))
    screen.print(Text("keeps", style="bold"), Text("; ".join(rule.words for rule in rules)))
    screen.print(Text(f"\n{_summary(found, steps, seconds)}"))
    screen.print(Text(f"\nbytes kept over {steps:,} steps, up to {human_size(max(found.peak, 1))}", style="dim"))
    screen.print(Text(_chart(found, steps), style="cyan"))
    screen.print(_over_time(found, steps, seconds))
    screen.print(Text("\nwhere the kept ones lie at the end", style="dim"))
    screen.print(Text(_places(found, steps), style="green"))
    screen.print(_at_the_end(found))
    if (more := len(found.kept) - LISTED) > 0:
        screen.print(Text(f"and {more:,} earlier ones that are kept, which --json lists", style="dim"))


def _bound(save: str | None, keep: str | None, monitors: Sequence[Monitor]) -> tuple[Trigger, Sequence[Rule]]:
    triggers, rules = parse_trigger(save) if save else None, parse_rules(keep) if keep else None
    try:
        return resolve_triggers(triggers, monitors), resolve_rules(rules, monitors)
    except ConfigurationError:
        if monitors or not _binds(triggers, rules, Monitor("loss")):
            raise
    raise ConfigurationError(
        f"{', '.join(filter(None, [save, keep]))} needs a metric: expected --monitor val_loss, or its name in there, "
        "such as on_best('val_loss')."
    )


def _binds(triggers: Trigger | None, rules: Sequence[Rule] | None, monitor: Monitor) -> bool:
    """Whether a monitor is all that they lack."""
    try:
        resolve_triggers(triggers, [monitor])
        resolve_rules(rules, [monitor])
    except ConfigurationError:
        return False
    return True


def _named(keep: str | None) -> list[Monitor]:
    """The monitors that rules speak of."""
    rules = parse_rules(keep) if keep else ()
    return [one for rule in rules if isinstance(one := _monitor_of(rule), Monitor)]


def _monitor_of(rule: object) -> Monitor | None:
    given = getattr(rule, "monitor", None)
    return Monitor(given) if isinstance(given, str) else given


def _as_json(found: Simulation) -> None:
    emit(
        {
            "saves": [
                {
                    "step": save.record.step,
                    "elapsed": save.record.elapsed,
                    "reasons": list(save.record.reasons),
                    "kept": save.count,
                    "bytes": save.nbytes,
                }
                for save in found.saves
            ],
            "kept": [
                {"step": one.step, "content": one.content, "size": one.size, "why": list(found.why[one.id])}
                for one in found.kept
            ],
            "peak": found.peak,
            "written": found.written,
        }
    )


def _summary(found: Simulation, steps: int, step_time: float) -> str:
    total = human_seconds(round(steps * step_time))
    return (
        f"{len(found.saves):,} saves in {total} of training; at the end {len(found.kept)} are kept, "
        f"{human_size(found.saves[-1].nbytes if found.saves else 0)}; at most {human_size(found.peak)} at once, "
        f"{human_size(found.written)} written"
    )


def _chart(found: Simulation, steps: int) -> str:
    columns = [0] * WIDTH
    at, level = 0, 0
    for save in found.saves:
        column = min(WIDTH - 1, save.record.step * WIDTH // steps)
        columns[at:column] = [max(level, one) for one in columns[at:column]]
        at, level = column, save.nbytes
        columns[column] = max(columns[column], level)
    columns[at:] = [max(level, one) for one in columns[at:]]
    top = max(found.peak, 1)
    return "".join(_BARS[-(-one * (len(_BARS) - 1) // top)] for one in columns)


def _places(found: Simulation, steps: int) -> str:
    places = [" "] * WIDTH
    for record in found.kept:
        places[min(WIDTH - 1, record.step * WIDTH // steps)] = "●" if record.content == "full" else "○"
    return "".join(places)


def _over_time(found: Simulation, steps: int, step_time: float) -> Table:
    """What the disk holds at some steps, evenly spaced."""
    table = _plain_table()
    for title in ("at step", "after", "snapshots", "bytes"):
        table.add_column(title, justify="right", no_wrap=True)
    for step in sorted({max(1, steps * row // ROWS) for row in range(1, ROWS + 1)}):
        there, after = found.at(step), timedelta(seconds=round(step * step_time))
        count, nbytes = (there.count, there.nbytes) if there is not None else (0, 0)
        table.add_row(f"{step:,}", str(after), f"{count:,}", human_size(nbytes))
    return table


def _plain_table() -> Table:
    return Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")


def _at_the_end(found: Simulation) -> Table:
    table = _plain_table()
    metrics = list(dict.fromkeys(name for record in found.kept for name in record.metrics))
    for title in ("step", "content", *metrics, "size"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("why", overflow="fold")
    for record in found.kept[-LISTED:]:
        values = (number(record.metrics.get(name)) for name in metrics)
        why = ", ".join(found.why[record.id])
        table.add_row(f"{record.step:,}", record.content, *values, human_size(record.size), why)
    return table
