"""Broken and hostile input gives an error of ours, or is read right. `make fuzz` tries many more."""

from __future__ import annotations

import random

import pytest

from tests.fuzzing import EXPRESSIONS, TARGETS, policy_in_a_run

INPUTS = 1500


@pytest.mark.parametrize("name", TARGETS)
def test_intact_input_is_read(name: str) -> None:
    """Else all that follows would be refused at the first look."""
    for intact in TARGETS[name].intact:
        assert TARGETS[name].read(intact)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TARGETS)
def test_broken_input_is_refused_cleanly(name: str) -> None:
    """Whatever was changed: no other exception, no endless loop, no huge allocation."""
    rng, target = random.Random(name), TARGETS[name]
    for _ in range(INPUTS // target.cost):
        broken = target.mutate(rng.choice(target.intact), rng)
        try:
            target.read(broken)
        except Exception as error:
            raise AssertionError(f"{broken!r}: {error!r}") from error


@pytest.mark.parametrize("expression", EXPRESSIONS, ids=lambda text: f"{text[:40]} {len(text)}")
def test_a_run_can_be_looked_at_whatever_its_policy_says(expression: str) -> None:
    """Its newest manifest may say anything: that is shown as it is, judged, or refused, and soon."""
    TARGETS["expression"].read(expression.encode())
    assert policy_in_a_run(expression, "keep_last(2)", expression)


def test_a_policy_has_not_any_number_of_rules() -> None:
    """Each is asked about each snapshot."""
    assert policy_in_a_run("on_end()", *["keep_last(2)"] * 200)
    assert not policy_in_a_run("on_end()", *["keep_last(2)"] * 201)
