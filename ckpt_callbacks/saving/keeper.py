"""The keeper: publishes staged snapshots, then deletes what no rule keeps. Runs on the writer's thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ckpt_callbacks import engine
from ckpt_callbacks.engine import Monitor, Rule
from ckpt_callbacks.messages import warn
from ckpt_callbacks.run import Run, Snapshot
from ckpt_callbacks.state.packing import Files
from ckpt_callbacks.store import LocalStore, Manifest

__all__ = ["Keeper"]


class Keeper:
    """What happens to a run when a snapshot is ready: commit, journal, judge, delete, links, in this order.

    Args:
        store: of the run.
        rules: what is kept; the union of what each wants.
        monitors: the first says which snapshot is best.

    Attributes:
        parent: id of the snapshot that the next one continues.
    """

    def __init__(self, store: LocalStore, rules: Sequence[Rule], monitors: Sequence[Monitor]) -> None:
        self._store, self._rules, self._monitors = store, rules, monitors
        self.parent: str | None = None

    def publish(self, draft: Manifest, files: Files) -> Manifest:
        """Make a snapshot durable and visible.

        Raises:
            StoreError: it could not be written; the run is as it was.
        """
        manifest = self._store.commit(replace(draft, parent=self.parent), files)
        self.parent = manifest.id
        self._store.journal.append(
            "saved", id=manifest.id, reasons=list(manifest.reasons), **manifest.progress.as_dict()
        )
        return manifest

    def tore(self, reasons: Sequence[str]) -> None:
        """Note that the copy of a snapshot was torn and discarded."""
        self._store.journal.append("torn", reasons=list(reasons))

    def tidy(self, newest: Manifest) -> Snapshot:
        """Apply the rules now that ``newest`` is safe; that they fail (a rule of the user's, a busy disk) is told."""
        try:
            self._judge()
        except Exception as error:  # noqa: BLE001 - whatever it is, the snapshot is safe
            warn(f"{newest.id} is saved, but older snapshots could not be tidied up: {error!r}")
        return Run(self._store.root).get(newest.id)

    def _judge(self) -> None:
        records = self._store.records()
        verdict = engine.judge(records, self._rules)
        for dropped, why in verdict.drop.items():
            if self._store.delete(dropped):
                self._store.journal.append("dropped", id=dropped, why=why)
        kept = [record for record in records if record.id in verdict.keep]
        self._store.link("latest", kept[-1].id)
        best = engine.best_of(kept, self._monitors[0]) if self._monitors else None
        if best is not None:
            self._store.link("best", best.id)
