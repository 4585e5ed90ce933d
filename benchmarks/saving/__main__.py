"""Run the arms of some groups in turn, and print what saving costs."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.saving.measure import Figures, Interval, in_a_process, scratch_in

NOTHING = "no checkpoints"


@dataclass(frozen=True)
class Group:
    """Arms that are compared with each other.

    ``options`` are what all of them get; ``trains`` tells whether what saving costs is the difference from training
    without it, or what was timed itself.
    """

    title: str
    module: str
    arms: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)
    trains: bool = True


BY_HAND = "### What was aimed at"
"""Where what people wrote begins, in a record."""

COLUMNS = (
    *("extra per save, s", "ours to it", "stands still per save, s", "the first, s", "memory, MB"),
    *("CPU per save, s", "written per save, MB", "restore, s", "from cache, s"),
)
LIGHTNING = (NOTHING, "ours", "ModelCheckpoint", "AsyncCheckpointIO")
MANY = (*LIGHTNING, "ours, waited for", "safetensors.save_file")
KERAS = (NOTHING, "ours", "ModelCheckpoint .keras", "ModelCheckpoint .weights.h5", "BackupAndRestore")
TENSORS = (
    *("warm copy", "raw write and fsync", "ours", "torch.save", "torch.save without CRC", "safetensors.save_file"),
    *("DCP save", "DCP async_save", *(["Orbax"] if importlib.util.find_spec("orbax") else [])),
)
READ = """\
{machine}. {blocks} blocks; in each, every arm runs once in a process of its own, another one first each time.
{files} Medians; in brackets the lowest and highest, or what holds the median with 95 % where there are enough blocks.

- *extra per save*: how much longer training takes than without checkpoints in the same block, until all is on disk, for
  each save; without training, how long a save takes. *ours to it*: the ratio in each block; "-" where an arm's extra
  time was lost in the noise of some block.
- *stands still*: time inside callbacks for each save but *the first*, which touches memory that is new.
- *memory*: the most that a process held beyond what it holds without saving. *CPU* likewise.
- *restore*: from the call of fit to the end of its first step, with nothing of the files in the page cache; *from
  cache*: with all of them there. Without training: until tensors are there that could be trained, safetensors' copied
  from its map. Memory for thrice the state was touched and given back just before.
"""
CORES = len(os.sched_getaffinity(0))


def groups() -> dict[str, Group]:
    """What can be measured: a state of 1 GB is five layers of 4096 with Adam."""
    base = {"steps": 30, "every": 6, "layers": 5, "width": 4096, "batch": 64, "frozen": 0, "restore": True}
    idle, frozen = {"threads": max(1, CORES - 1)}, {"layers": 58, "frozen": 57, "width": 1200}
    often = {"every": 1, "width": 1400}
    seldom = {"steps": 60, "width": 1400, "restore": False}
    many = base | {"tensors": 2000, "every": 2, "width": 64, "restore": False}
    return {
        "lightning": Group("Lightning, 1 GB of Adam state, all cores train", "lightning", LIGHTNING, base),
        "lightning-idle": Group("Lightning, the same, one core left idle", "lightning", LIGHTNING, base | idle),
        "lightning-often": Group(
            "Lightning, 120 MB of Adam state, saved after every step", "lightning", LIGHTNING, base | often
        ),
        "lightning-5": Group(
            "Lightning, the same, after every 5th step", "lightning", LIGHTNING, base | seldom | {"every": 5}
        ),
        "lightning-20": Group(
            "Lightning, the same, after every 20th step", "lightning", LIGHTNING, base | seldom | {"every": 20}
        ),
        "lightning-epochs": Group(
            "Lightning, 1 GB, one core left idle, each epoch of 6 steps validated and monitored",
            "lightning",
            LIGHTNING,
            base | idle | {"monitors": True, "restore": False},
        ),
        "lightning-frozen": Group("Lightning, 95 % of the state's bytes frozen", "lightning", LIGHTNING, base | frozen),
        "lightning-many": Group("Lightning, 2,000 small tensors", "lightning", MANY, many),
        "keras": Group("Keras, 600 MB of Adam state", "keras", KERAS, base | {"layers": 3, "batch": 32}),
        "keras-idle": Group(
            "Keras, the same, one core left idle",
            "keras",
            KERAS,
            base | idle | {"layers": 3, "batch": 32, "restore": False},
        ),
        "tensors": Group("1 GB in 30 tensors", "tensors", TENSORS, {"mb": 1000, "tensors": 30, "saves": 5}, False),
        "small": Group("2,000 small tensors", "tensors", TENSORS, {"mb": 16, "tensors": 2000, "saves": 8}, False),
    }


def main() -> int:
    """Measure, print, and write the table if asked to."""
    arguments = _arguments()
    known = groups()
    text = ["# What saving costs", READ.format(machine=_machine(), blocks=arguments.blocks, files=_files(arguments))]
    by_hand = _by_hand(arguments.record)
    with scratch_in(arguments.directory) as scratch:
        for name in arguments.groups or known:
            group = known[name]
            shared = {"threads": CORES, "durable": not arguments.cached, "device": arguments.device}
            found = _measure(group, shared | group.options, arguments.blocks, scratch)
            table = "\n".join(_table(group, found))
            print(table, flush=True)
            text.append(table)
            if arguments.record:  # hours pass until the last group
                Path(arguments.record).write_text("\n\n".join([*text, *by_hand]) + "\n")
    return 0


def _by_hand(record: str | None) -> list[str]:
    """The end of an earlier record: what people wrote about the figures. They must look at it again."""
    _, mark, rest = Path(record).read_text().partition(BY_HAND) if record and Path(record).exists() else ("", "", "")
    return [mark + rest.rstrip()] if mark else []


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.saving", description=__doc__)
    parser.add_argument("groups", nargs="*", choices=[*groups(), []], help="default: all")
    parser.add_argument("--blocks", type=int, default=7, help="how often each arm runs")
    parser.add_argument("--cached", action="store_true", help="wait for no disk: the page cache class")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--directory", help="where to write: on the disk that is measured")
    parser.add_argument("--record", help="a file for the tables")
    return parser.parse_args()


def _measure(group: Group, options: dict[str, Any], blocks: int, scratch: Path) -> dict[str, list[Figures]]:
    """The figures of each arm: in every block all run once, each time another one first."""
    found: dict[str, list[Figures]] = {arm: [] for arm in group.arms}
    for block in range(blocks):
        turn = block % len(group.arms)
        for arm in (*group.arms[turn:], *group.arms[:turn]):
            figures = in_a_process(f"benchmarks.saving.{group.module}", arm, options, scratch)
            found[arm].append(figures)
            print(f"  {group.title}: block {block + 1}, {arm}: {figures.wall:.2f} s", file=sys.stderr, flush=True)
    return found


def _table(group: Group, found: dict[str, list[Figures]]) -> Iterator[str]:
    """Lines of Markdown: median and interval of each figure, and the ratio of ours to each."""
    yield f"### {group.title}\n"
    yield f"| arm | {' | '.join(COLUMNS)} |"
    yield f"|---|{'---|' * len(COLUMNS)}"
    ours = _extra(group, found, "ours")
    for arm in found:
        if arm == NOTHING:
            continue
        extra = _extra(group, found, arm)
        ratios = (
            Interval.of([mine / its for mine, its in zip(ours, extra, strict=True)]).text() if min(extra) > 0 else "-"
        )
        first = found[arm][0]
        saves = max(first.saves, 1)
        inside = [median(figures.inside[1:] or figures.inside) for figures in found[arm] if figures.inside]
        at_first = [figures.inside[0] for figures in found[arm] if figures.inside]
        base = found[NOTHING] if NOTHING in found else [Figures()] * len(found[arm])
        memory = median(one.memory - none.memory for one, none in zip(found[arm], base, strict=True)) / 1e6
        cpu = median((one.cpu - none.cpu) / saves for one, none in zip(found[arm], base, strict=True))
        restore, cached = (
            median(times) for times in zip(*((one.restore, one.restore_cached) for one in found[arm]), strict=True)
        )
        cells = (
            Interval.of(extra).text(3),
            ratios,
            Interval.of(inside).text(3) if inside else "-",
            f"{median(at_first):.3f}" if at_first else "-",
            f"{memory:.0f}",
            f"{cpu:.2f}",
            f"{median(figures.written for figures in found[arm]) / saves / 1e6:.0f}",
            f"{restore:.2f}" if restore else "-",
            f"{cached:.2f}" if cached else "-",
        )
        exact = "" if all(figures.exact for figures in found[arm]) else " (not restored exactly)"
        yield f"| {arm}{exact} | {' | '.join(cells)} |"
    if NOTHING in found:
        step = median(step for figures in found[NOTHING] for step in figures.steps)
        start = median(one.restore for one in found[NOTHING])
        until = f", and a fit {start:.2f} s to the end of its first one" if start else ""
        yield f"\nWithout checkpoints a step takes {step:.3f} s{until}."


def _extra(group: Group, found: dict[str, list[Figures]], arm: str) -> list[float]:
    """What each save cost in each block, in seconds."""
    if not group.trains:
        return [median(figures.inside[1:]) for figures in found[arm]]
    return [
        (figures.wall - none.wall) / max(figures.saves, 1)
        for figures, none in zip(found[arm], found[NOTHING], strict=True)
    ]


def _machine() -> str:
    names = ("torch", "pytorch-lightning", "keras", "tensorflow_cpu", "safetensors", "orbax-checkpoint")
    versions = [f"{name} {importlib.metadata.version(name)}" for name in names if _is_installed(name)]
    return f"{CORES} cores ({platform.machine()}), Python {platform.python_version()}, {', '.join(versions)}"


def _files(arguments: argparse.Namespace) -> str:
    return "Files stay in the page cache." if arguments.cached else "Every arm's files are flushed to the disk."


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
