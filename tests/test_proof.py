"""The proof of a resume: steps computed again are compared with what they gave before."""

from __future__ import annotations

import math

from ckpt_callbacks.proof import Proof
from ckpt_callbacks.store import Step, fingerprint


def step(batches: int, loss: float = 0.5) -> Step:
    return Step(batches, batches, loss, fingerprint(loss))


def proof(*batches: int) -> Proof:
    return Proof({count: step(count) for count in batches})


def outcomes(proof: Proof, *steps: Step) -> list[str]:
    return [str(outcome) for outcome in map(proof.saw, steps) if outcome is not None]


def test_all_identical():
    """The outcome comes once, when the last step on record was passed."""
    assert outcomes(proof(5, 6, 7), *map(step, range(5, 12))) == ["resume verified: 3 steps identical"]


def test_one_step():
    """One is one."""
    assert outcomes(proof(5), step(5)) == ["resume verified: 1 step identical"]


def test_the_first_step_that_differs():
    """It is named with both losses, as soon as it was computed; what follows is silent."""
    later = [step(5), step(6, 0.25), step(7, 0.125)]
    assert outcomes(proof(5, 6, 7), *later) == [
        "resume diverged: step 6 is the first that differs (loss 0.5 before the crash, 0.25 now); "
        "1 step before it was identical"
    ]


def test_a_loss_that_is_not_known_is_not_shown():
    """A framework may give a fingerprint without a loss."""
    before, now = Step(5, 5, math.nan, 1), Step(5, 5, math.nan, 2)
    assert "loss" not in outcomes(Proof({5: before}), now)[0]


def test_steps_without_record_are_counted():
    """What was overwritten, or never recorded, is not called verified."""
    assert outcomes(proof(6, 8), *map(step, (5, 6, 7, 8))) == [
        "resume verified: 2 steps identical (2 more had left no record)"
    ]


def test_other_counts_end_the_wait():
    """Batches that never match (a larger batch size, say) don't let the proof wait for ever."""
    assert outcomes(proof(6, 8), step(9)) == ["resume not verified: none of the steps on record was computed again"]


def test_nothing_on_record():
    """Without a record there is no outcome, and none at the end."""
    empty = proof()
    assert outcomes(empty, step(1)) == []
    assert empty.outcome() is None


def test_training_that_ends_early():
    """What was compared by then is told."""
    early = proof(5, 6, 7)
    early.saw(step(5))
    assert str(early.outcome()) == "resume verified: 1 step identical"
    assert early.outcome() is None
