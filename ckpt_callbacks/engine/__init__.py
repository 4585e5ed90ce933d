"""Decides when to save and what to keep: no clock, no disk, no randomness, no framework."""
from .decide import Decision, decide
from .moment import Event, Moment, Progress
from .monitor import Monitor, to_float
from .monitor import resolve as resolve_monitors
from .retention import *
from .retention import Verdict, best_of, judge
from .retention import resolve as resolve_rules
from .snapshot import Record
from .triggers import *
from .triggers import Past, Trigger
from .triggers import resolve as resolve_triggers
