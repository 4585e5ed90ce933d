"""Decides when to save and what to keep: no clock, no disk, no randomness, no framework.

``moment``     what it is told
``monitor``    which of two values is better
``triggers``   when to save
``rest``       how long nothing can be due
``decide``     moment, past -> reasons, past'
``snapshot``   what it knows of a committed snapshot
``retention``  what to keep, and why: the judge; ``rules``: what each of them keeps; ``docket``: what is still open
``watch``      whether what is monitored is measured at all
``best``       whether the best values that are remembered can be found again
``simulate``   what a policy would save and keep over a whole run
``expressions``  triggers and rules from text; ``units``: times and sizes
"""

from __future__ import annotations

from ckpt_callbacks.engine.best import best_values, found_again, without_lost
from ckpt_callbacks.engine.decide import Decision, best_after, decide
from ckpt_callbacks.engine.docket import Docket
from ckpt_callbacks.engine.expressions import parse_recorded_trigger, parse_rules, parse_trigger
from ckpt_callbacks.engine.moment import Event, Moment, Progress
from ckpt_callbacks.engine.monitor import Monitor, is_loss, numbers, to_float
from ckpt_callbacks.engine.monitor import resolve as resolve_monitors
from ckpt_callbacks.engine.rest import Rest
from ckpt_callbacks.engine.retention import Rule, Verdict, judge
from ckpt_callbacks.engine.rules import (
    best_of,
    keep_all,
    keep_best,
    keep_every_steps,
    keep_last,
    keep_log_spaced,
    keep_tiers,
    keep_when,
    keep_within,
    promised,
    weights_after,
    with_best,
)
from ckpt_callbacks.engine.rules import resolve as resolve_rules
from ckpt_callbacks.engine.simulate import Simulation, simulate
from ckpt_callbacks.engine.snapshot import Content, Record
from ckpt_callbacks.engine.triggers import (
    Past,
    Trigger,
    every,
    every_batches,
    every_epochs,
    every_steps,
    on_best,
    on_end,
    on_exception,
    on_signal,
    when,
)
from ckpt_callbacks.engine.triggers import resolve as resolve_triggers
from ckpt_callbacks.engine.watch import Watch

__all__ = [
    "Content",
    "Decision",
    "Docket",
    "Event",
    "Moment",
    "Monitor",
    "Past",
    "Progress",
    "Record",
    "Rest",
    "Rule",
    "Simulation",
    "Trigger",
    "Verdict",
    "Watch",
    "best_after",
    "best_of",
    "best_values",
    "decide",
    "every",
    "every_batches",
    "every_epochs",
    "every_steps",
    "found_again",
    "is_loss",
    "judge",
    "keep_all",
    "keep_best",
    "keep_every_steps",
    "keep_last",
    "keep_log_spaced",
    "keep_tiers",
    "keep_when",
    "keep_within",
    "numbers",
    "on_best",
    "on_end",
    "on_exception",
    "on_signal",
    "parse_recorded_trigger",
    "parse_rules",
    "parse_trigger",
    "promised",
    "resolve_monitors",
    "resolve_rules",
    "resolve_triggers",
    "simulate",
    "to_float",
    "weights_after",
    "when",
    "with_best",
    "without_lost",
]
