"""A simulated run saves and keeps what a real one of the same policy would."""

from __future__ import annotations

from ckpt_callbacks import (
    Monitor,
    every,
    every_epochs,
    every_steps,
    keep_all,
    keep_best,
    keep_last,
    keep_within,
    on_best,
    on_end,
    weights_after,
)
from ckpt_callbacks.engine import Rule, Simulation, Trigger, simulate

LOSS = Monitor("loss")


def simulated(trigger: Trigger, *rules: Rule, steps: int = 1000, **options: object) -> Simulation:
    options = {"steps": steps, "step_time": 0.5, "size": 90, "epoch_steps": 100, "monitors": [LOSS], **options}
    return simulate(trigger, rules, **options)  # type: ignore[arg-type]


def test_steps_epochs_time_and_the_end() -> None:
    """Each trigger fires where it would."""
    assert [one.record.step for one in simulated(every_steps(300), keep_all()).saves] == [300, 600, 900]
    assert len(simulated(every_epochs(1), keep_all()).saves) == 10
    assert [one.record.step for one in simulated(every("2m"), keep_all()).saves] == [240, 480, 720, 960]
    assert [one.record.step for one in simulated(on_end(), keep_all(), steps=950).saves] == [950]


def test_the_best_comes_less_and_less_often() -> None:
    """But always at first."""
    found = simulated(on_best(LOSS), keep_best(2, LOSS), steps=10_000)
    assert 3 < len(found.saves) < 100
    assert len(found.kept) == 2


def test_bytes_over_time() -> None:
    """What is kept, what is there at most, and what was written in all; those reduced to weights are smaller."""
    found = simulated(every_steps(100), keep_last(3))
    assert [one.nbytes for one in found.saves] == [90, 180, *[270] * 8]
    assert (found.peak, found.written) == (360, 900)
    assert [one.step for one in found.kept] == [800, 900, 1000]
    reduced = simulated(every_steps(100), keep_last(3), weights_after(1))
    assert [(one.content, one.size) for one in reduced.kept] == [("weights", 30), ("weights", 30), ("full", 90)]
    assert simulated(every_steps(100), keep_within(200)).saves[-1].count == 2


def test_a_long_run_takes_no_longer_than_its_saves() -> None:
    """Steps at which nothing can be due are passed over, as in a real run."""
    assert len(simulated(every_steps(10**6), keep_last(1), steps=10**9, epoch_steps=10**8).saves) == 1000
