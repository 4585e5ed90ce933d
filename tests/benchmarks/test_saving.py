"""`make bench`: a slice of it, so that the command stays true."""

from __future__ import annotations

import pytest

from benchmarks.saving import __main__ as bench
from benchmarks.saving.measure import Figures, Interval, in_a_process

TINY = {"steps": 4, "every": 2, "layers": 2, "width": 16, "batch": 4, "frozen": 0, "restore": True}
SHARED = {"threads": 1, "durable": True, "device": "cpu", "mb": 1, "tensors": 3, "saves": 2}


@pytest.mark.parametrize(
    ("module", "arm"),
    [
        ("lightning", "ours"),
        ("lightning", "AsyncCheckpointIO"),
        ("keras", "ours"),
        ("tensors", "ours"),
        ("tensors", "safetensors.save_file"),
        ("tensors", "DCP async_save"),
    ],
)
def test_an_arm_measures_and_restores(module, arm, tmp_path):
    """Each in a process of its own; what it saved last is what training had."""
    figures = in_a_process(f"benchmarks.saving.{module}", arm, {**SHARED, **TINY}, tmp_path)
    assert figures.saves == 2
    assert len(figures.inside) == 2
    assert figures.exact
    assert figures.restore > 0
    assert figures.restore_cached > 0
    assert figures.wall > 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arm", ["ours", "ModelCheckpoint"])
def test_an_arm_that_monitors_saves_each_epoch(arm, tmp_path):
    """A validation after every second step tells the best."""
    options = {**SHARED, **TINY, "restore": False, "monitors": True}
    del options["tensors"]
    figures = in_a_process("benchmarks.saving.lightning", arm, options, tmp_path)
    assert len(figures.inside) == figures.saves == 2


def test_a_table_has_a_row_for_each_arm():
    """Costs are differences to training that saves nothing, in the same block."""
    group = bench.Group("A title", "lightning", (bench.NOTHING, "ours", "theirs"))
    found = {
        bench.NOTHING: [Figures(wall=1.0, steps=[0.1])] * 3,
        "ours": [Figures(wall=1.2, saves=2, inside=[0.1, 0.1], restore=0.5)] * 3,
        "theirs": [Figures(wall=2.0, saves=2, inside=[0.5, 0.5], exact=False)] * 3,
    }
    rows = [line for line in bench._table(group, found) if line.startswith("| ")]
    assert [row.split("|")[1].strip() for row in rows] == ["arm", "ours", "theirs (not restored exactly)"]
    assert "0.100 (0.100-0.100)" in rows[1]
    assert "0.20 (0.20-0.20)" in rows[2]


def test_the_interval_is_that_of_the_sign_test():
    """Of seven blocks all are needed for 95 %, of nine the outermost two are left out."""
    assert Interval.of(range(7)) == Interval(3, 0, 6)
    assert Interval.of(range(9)) == Interval(4, 1, 7)
    assert Interval.of([1.0]) == Interval(1.0, 1.0, 1.0)
