"""Best values that are remembered, and the snapshots that have them."""

from __future__ import annotations

import pytest

from ckpt_callbacks.engine import (
    Monitor,
    Past,
    Record,
    best_values,
    every_epochs,
    every_steps,
    found_again,
    keep_all,
    keep_best,
    keep_last,
    on_best,
    promised,
    without_lost,
)

LOSS, ACC = Monitor("loss"), Monitor("acc")


def record(loss: float, **others: object) -> Record:
    return Record(f"{loss}", 1, metrics={"loss": loss}, **others)


def test_the_best_of_what_there_is() -> None:
    """What is not healthy, of another run or line is none; what was never measured is not named."""
    others = [record(0.1, healthy=False), record(0.2, own=False), record(0.3, line=1)]
    assert best_values([record(0.5), record(0.4), *others], [LOSS, ACC]) == {"loss:min": 0.4}
    assert best_values([], [LOSS]) == {}


def test_a_value_that_was_lost_gives_way_to_the_best_there_is() -> None:
    """One that has been beaten meanwhile does not matter, nor one of another monitor."""
    past = Past(best={"loss:min": 0.1, "acc:max": 0.8})
    assert without_lost(past, [{"loss": 0.1}], [record(0.4)], [LOSS, ACC]).best == {"loss:min": 0.4, "acc:max": 0.8}
    assert without_lost(past, [{"loss": 0.1}], [], [LOSS, ACC]).best == {"acc:max": 0.8}
    assert without_lost(past, [{"loss": 0.2}, {"other": 0.8}], [record(0.4)], [LOSS, ACC]) is past


def test_a_value_that_no_snapshot_has_is_forgotten() -> None:
    """One that is as good or better may be there: what improves by less than `min_delta` is not remembered."""
    past = Past(best={"loss:min": 0.1, "acc:max": 0.8})
    assert found_again(past, [record(0.4)], [LOSS]).best == {"loss:min": 0.4, "acc:max": 0.8}
    assert found_again(past, [record(0.4)], []) is past
    for there in (0.1, 0.05):
        assert found_again(past, [record(there)], [LOSS]) is past


@pytest.mark.parametrize(
    ("save", "keep", "holds"),
    [
        (on_best(LOSS), (keep_best(1, LOSS),), True),
        (on_best(LOSS) | every_steps(2), (keep_last(1), keep_all()), True),
        (on_best(LOSS), (keep_last(3),), False),
        (on_best(LOSS), (keep_best(1, ACC),), False),
        (on_best(LOSS) & every_epochs(2), (keep_best(1, LOSS),), False),
        (every_epochs(1), (keep_best(1, LOSS),), False),
    ],
    ids=str,
)
def test_what_is_promised(save: object, keep: tuple[object, ...], holds: bool) -> None:
    """To be saved whenever it is the best, and kept as long as it is."""
    assert promised(save, keep, [LOSS]) == ((LOSS,) if holds else ())
