"""A run's whole life against a model of it: saves, pins, crashes, going back, other rules; what is on disk is what the
judge said, and there is always something to resume from."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from safetensors.numpy import save

from ckpt_callbacks import Monitor, keep_best, keep_every_steps, keep_last, keep_log_spaced, keep_within, weights_after
from ckpt_callbacks import resume as resumes
from ckpt_callbacks.engine import Progress, Record, Rule, best_of, judge
from ckpt_callbacks.run import Run
from ckpt_callbacks.saving import Keeper
from ckpt_callbacks.store import LocalStore, Manifest

LOSS, STATE = Monitor("loss"), save({"moment": np.zeros(4)})
one_rule = st.one_of(
    st.integers(1, 3).map(keep_last),
    st.integers(1, 3).map(lambda k: keep_best(k, LOSS)),
    st.integers(2, 9).map(keep_every_steps),
    st.integers(1, 2000).map(keep_within),
    st.just(keep_log_spaced(2)),
)
policies = st.tuples(st.lists(one_rule, min_size=1, max_size=3), st.none() | st.integers(1, 3).map(weights_after)).map(
    lambda pair: (*pair[0], *([pair[1]] if pair[1] else []))
)


class RunMachine(RuleBasedStateMachine):
    """`self.expected` is what should be there: id -> record."""

    @initialize(rules=policies)
    def begin(self, rules: tuple[Rule, ...]) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.expected: dict[str, Record] = {}
        self.step, self.line_of_next, self.lines = 0, 0, 0
        self.start(rules)

    @rule(rules=policies)
    def start(self, rules: tuple[Rule, ...]) -> None:
        """A new process carries on, maybe with other rules: whatever was in memory is gone."""
        self.rules = rules
        self.store = LocalStore(self.folder / "run", durability="none")
        self.store.open()
        self.keeper = Keeper(self.store, rules, [LOSS])
        full = [one for one in self.store.own() if one.content == "full"]
        self._begin_at(full[-1] if full else None)

    def _begin_at(self, manifest: Manifest | None) -> None:
        choice = None
        if manifest is not None:
            snapshot = Run(self.store.root).get(manifest.id)
            choice = SimpleNamespace(snapshot=snapshot)
            self.step = manifest.progress.step
        self.abandoned = resumes.abandoned(self.store, choice)  # type: ignore[arg-type]
        self.keeper.begin(manifest.id if manifest else None, self.abandoned)

    @rule(steps=st.integers(1, 5), loss=st.floats(0, 1) | st.none(), healthy=st.sampled_from([True, True, True, False]))
    def save(self, steps: int, loss: float | None, healthy: bool) -> None:
        self.step += steps
        draft = Manifest.draft(
            progress=Progress(self.step, 0, self.step, self.step),
            metrics={} if loss is None else {"loss": loss},
            elapsed=float(self.step),
            monitors=[LOSS.as_dict()],
            unhealthy=None if healthy else "w is not finite",
        )
        files = {"model.bin": [b"w" * 50], "state.safetensors": [STATE]}
        manifest = self.keeper.publish(draft, files)
        self.keeper.tidy(manifest)
        self._expect(manifest)

    def _expect(self, manifest: Manifest) -> None:
        """The judge's own word over all that was there and this one, each as this one's manifest sees its line."""
        records = [*self.expected.values(), manifest.record()]
        for number, record in enumerate(records):
            if not record.own:
                continue
            lines = [n for n, (a, b) in enumerate(manifest.abandoned, start=1) if a <= record.sequence <= b]
            records[number] = replace(record, line=lines[0] if lines else 0)
        verdict = judge(records, self.rules)
        left = [record for record in records if record.id in verdict.keep]
        self.expected = {
            one.id: replace(one, content="weights", size=50) if one.id in verdict.demote else one for one in left
        }

    def _in_order(self) -> list[str]:
        """The ids, in an order that is the same each time: what is random in them must not steer what is drawn."""
        return sorted(self.expected, key=lambda id: (self.expected[id].own, self.expected[id].sequence))

    @precondition(lambda self: self.expected)
    @rule(data=st.data())
    def pin(self, data: st.DataObject) -> None:
        """Somebody pins a snapshot, or takes its pin away."""
        id = data.draw(st.sampled_from(self._in_order()))
        pinned = not self.expected[id].pinned
        (self.store.pin if pinned else self.store.unpin)(id)
        self.expected[id] = replace(self.expected[id], pinned=pinned)

    @precondition(lambda self: any(one.content == "full" for one in self.expected.values()))
    @rule(data=st.data())
    def go_back(self, data: st.DataObject) -> None:
        """Training goes on from an older snapshot."""
        full = [id for id in self._in_order() if self.expected[id].content == "full"]
        self._begin_at(self.store.manifest(data.draw(st.sampled_from(full))))

    @precondition(lambda self: sum(one.own and one.content == "full" for one in self.expected.values()) > 1)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        """Somebody deletes a snapshot by hand."""
        id = data.draw(st.sampled_from(self._in_order()))
        shutil.rmtree(self.store.path(id))
        self.store.unpin(id)
        del self.expected[id]

    @rule(step=st.integers(1, 30), content=st.sampled_from(["full", "weights"]))
    def copy_in(self, step: int, content: str) -> None:
        """Somebody puts a snapshot of another run beside this one's: better and newer than any."""
        other = LocalStore(self.folder / "other", durability="none")
        draft = Manifest.draft(progress=Progress(step), metrics={"loss": -1.0}, content=content)  # type: ignore[arg-type]
        guest = other.commit(draft, {"model.bin": [b"w" * 50]})
        shutil.copytree(other.path(guest.id), self.store.path(guest.id))
        self.expected[guest.id] = guest.record(own=False)

    @invariant()
    def what_is_there_is_what_was_judged(self) -> None:
        if not hasattr(self, "store"):
            return
        found = {record.id: record for record in LocalStore(self.folder / "run").records()}
        assert found.keys() == self.expected.keys()
        for id, record in found.items():
            expected = self.expected[id]
            for what in ("content", "pinned", "size", "own"):
                assert getattr(record, what) == getattr(expected, what), (record, expected)
            assert self.store.verify(id) == []
        if any(record.own for record in found.values()):
            assert any(record.content == "full" for record in found.values() if record.own)
            best = best_of(found.values(), LOSS)
            assert (Run(self.folder / "run").best() or best) == (best and Run(self.folder / "run").get(best.id))

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)


RunMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestRunMachine = RunMachine.TestCase
