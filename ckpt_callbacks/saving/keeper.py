"""The keeper: publishes staged snapshots, then deletes and reduces what no rule keeps. Runs on the writer's thread."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ckpt_callbacks import engine
from ckpt_callbacks.engine import Docket, Monitor, Record, Rule, Verdict
from ckpt_callbacks.errors import StoreError
from ckpt_callbacks.messages import warn
from ckpt_callbacks.run import Snapshot, human_size
from ckpt_callbacks.state.files.packing import Files
from ckpt_callbacks.state.files.payload import of_weights
from ckpt_callbacks.store import LocalStore, Manifest

__all__ = ["Keeper"]


class Keeper:
    """What happens to a run when a snapshot is ready: room, commit, journal, judge, delete, links, in this order.

    Args:
        store: of the run.
        rules: what is kept; the union of what each wants.
        monitors: the first says which snapshot is best.

    Attributes:
        abandoned: what training left behind to get where it began; None before it has.
    """

    def __init__(self, store: LocalStore, rules: Sequence[Rule], monitors: Sequence[Monitor]) -> None:
        self._store, self._rules, self._monitors = store, rules, monitors
        self.abandoned: tuple[tuple[int, int], ...] | None = None
        self._reset(None)

    def begin(self, parent: str | None, abandoned: Sequence[tuple[int, int]]) -> None:
        """A fit begins.

        Args:
            parent: id of the snapshot that the next one continues.
            abandoned: what training left behind to get there, see `Manifest`.
        """
        self.abandoned = tuple(abandoned)
        self._reset(parent)

    def _reset(self, parent: str | None) -> None:
        self._parent = parent
        self._before: Manifest | None = None  # what this fit published last
        self._docket: Docket | None = None
        self._judged_with: tuple[Mapping[str, str | None], int] = {}, 0  # pins, and news of the store
        self._best: Record | None = None
        self._told: dict[str, tuple[str, ...]] = {}  # why each snapshot is kept, as the journal has it
        self._warned: set[str] = set()

    def preflight(self, nbytes: int) -> None:
        """Warn if the disk has no room for a snapshot of this size, also if what may go goes first."""
        free = self._store.free()
        if free is None or free >= nbytes:
            return
        drop, demote = self._dispensable(nbytes)
        free += sum(record.size for record in drop) + sum(map(self._reducible, demote))
        if free < nbytes:
            self._warn_once(
                "room",
                f"the next snapshot will probably not fit: it takes about {human_size(nbytes)}, and the disk of "
                f"{self._store.root} has {human_size(free)} left, what the rules let go of counted. Free some space, "
                "or keep fewer snapshots",
            )

    def publish(
        self, draft: Manifest, files: Files, stands_still: Callable[[Path], bool] = lambda earlier: False
    ) -> Manifest:
        """Make a snapshot durable and visible.

        Args:
            draft: its manifest, but for what only the commit knows.
            files: its files' bytes.
            stands_still: whether its trained weights are those of the snapshot in an earlier directory.

        Raises:
            StoreError: it could not be written; the run is as it was, but for what its rules would have dropped.
        """
        self._make_room(sum(memoryview(chunk).nbytes for chunks in files.values() for chunk in chunks))
        manifest = self._store.commit(replace(draft, parent=self._parent, abandoned=self.abandoned or ()), files)
        self._store.journal.append(
            "saved", id=manifest.id, reasons=list(manifest.reasons), **manifest.progress.as_dict()
        )
        self._look_at(manifest, stands_still)
        self._parent, self._before = manifest.id, manifest
        return manifest

    def tore(self, reasons: Sequence[str]) -> None:
        """Note that the copy of a snapshot was torn and discarded."""
        self._store.journal.append("torn", reasons=list(reasons))

    def tidy(self, newest: Manifest) -> Snapshot:
        """Apply the rules now that ``newest`` is safe; that they fail (a rule of the user's, a busy disk) is told."""
        try:
            self._judge(newest)
            self.preflight(newest.size)
        except Exception as error:  # noqa: BLE001 - whatever it is, the snapshot is safe
            self._docket = None
            warn(f"{newest.id} is saved, but older snapshots could not be tidied up: {error!r}")
        return Snapshot(newest, self._store.path(newest.id))

    def _judge(self, newest: Manifest) -> None:
        docket, verdict = self._hear(newest)
        if self._drop(verdict.drop) < len(verdict.drop):  # somebody pinned one this very moment
            self._docket = None
        for id in self._demote(verdict.demote):
            docket.reduced(id, self._store.manifest(id).size)
        for sentence in verdict.exceeded:
            self._warn_once(sentence.partition(":")[0], sentence)
        self._explain(verdict)
        self._store.link("latest", newest.id)
        if self._best is not None:
            self._store.link("best", self._best.id)

    def _hear(self, newest: Manifest) -> tuple[Docket, Verdict]:
        """The verdict now that ``newest`` is there. If anything else has changed since the last one, somebody pinned or
        removed a snapshot, and all are judged anew."""
        pins, docket = self._store.pins(), self._docket
        if docket is None or (pins, self._store.news) != self._judged_with:
            docket = self._docket = Docket(self._rules, self._store.records(self.abandoned))
            self._judged_with = pins, self._store.news
            verdict, candidates = docket.judge(), docket.kept()
        else:
            verdict = docket.judge(newest.record())
            gone = self._best is not None and self._best.id in verdict.drop
            candidates = docket.kept() if gone else filter(None, (self._best, newest.record()))
        self._best = engine.best_of(candidates, self._monitors[0]) if self._monitors else None
        return docket, verdict

    def _drop(self, dropped: Mapping[str, str]) -> int:
        """How many of these could be deleted."""
        count = 0
        for id, why in dropped.items():
            if self._store.delete(id):
                self._store.journal.append("dropped", id=id, why=why)
                count += 1
        return count

    def _demote(self, demoted: Mapping[str, str]) -> list[str]:
        """Those of these that could be reduced to their weights."""
        done = []
        for id, why in demoted.items():
            if self._store.demote(id, of_weights):
                self._store.journal.append("demoted", id=id, why=why)
                done.append(id)
        return done

    def _explain(self, verdict: Verdict) -> None:
        """Journal why snapshots are kept, where that is news."""
        for id, reasons in verdict.keep.items():
            if self._told.get(id) != reasons:
                self._store.journal.append("kept", id=id, why=list(reasons))
                self._told[id] = reasons
        for id in verdict.drop:
            self._told.pop(id, None)

    def _make_room(self, nbytes: int) -> None:
        """If the disk is too full for the next snapshot, delete now what would be deleted after it; if that is not
        enough, reduce what would be reduced."""
        if not self._is_short_of(nbytes):
            return
        self._docket = None
        drop, demote = self._dispensable(nbytes)
        with contextlib.suppress(StoreError):  # what matters is whether the snapshot can be written, which is next
            self._drop({one.id: "no rule keeps it, and the disk is too full to wait" for one in drop})
            if self._is_short_of(nbytes):
                self._demote({id: f"{why}, and the disk is too full to wait" for id, why in demote.items()})

    def _is_short_of(self, nbytes: int) -> bool:
        free = self._store.free()
        return free is not None and free < nbytes

    def _dispensable(self, nbytes: int) -> tuple[list[Record], dict[str, str]]:
        """What is dropped once a further snapshot is there, and what is reduced to its weights, why; but for what must
        stay as it is until then."""
        records = self._store.records(self.abandoned)
        sequence = 1 + max((record.sequence for record in records), default=0)
        verdict = engine.judge([*records, Record("", sequence, size=nbytes)], self._rules)
        full = [record for record in records if record.content == "full"]
        needed = {*engine.judge(records, ()).keep, *engine.judge(full, ()).keep, self._parent}
        free = [record for record in records if record.id not in needed]
        demoted = {record.id: verdict.demote[record.id] for record in free if record.id in verdict.demote}
        return [record for record in free if record.id in verdict.drop], demoted

    def _reducible(self, id: str) -> int:
        """The bytes that a snapshot loses if it keeps its weights only."""
        with contextlib.suppress(StoreError):  # gone this very moment
            files = self._store.manifest(id).files
            return sum(info.size for name, info in files.items() if not of_weights(name))
        return 0

    def _look_at(self, manifest: Manifest, stands_still: Callable[[Path], bool]) -> None:
        """Warn of what makes a snapshot worth little: numbers that are none, weights that stand still."""
        if manifest.unhealthy:
            self._warn_once(
                "unhealthy",
                f"{manifest.id} is not healthy: {manifest.unhealthy}. It never counts as the best, and pushes out no "
                "healthy one",
            )
        before = self._before
        if before is None or manifest.unhealthy or manifest.progress.step <= before.progress.step:
            return
        try:
            if not stands_still(self._store.path(before.id)):
                return
        except OSError:  # the earlier one is gone, or its disk is: nobody can tell
            return
        steps = f"from {before.progress.step} to {manifest.progress.step}"
        self._store.journal.append("stale", id=manifest.id, since=before.id)
        self._warn_once(
            "stale",
            f"steps went on {steps}, but no weight has changed: what is trained is in {manifest.id} as in {before.id}. "
            "Does the optimizer have the model's parameters, and a learning rate that is not 0?",
        )

    def _warn_once(self, what: str, sentence: str) -> None:
        if what not in self._warned:
            self._warned.add(what)
            warn(sentence)
