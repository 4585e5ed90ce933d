"""The checkpointer: observe, save, resume. The only piece that has effects, in this order.

Theory of operation. An adapter calls eight methods, all but `stepped` on the training thread:

    begin(...)      once per fit: lock the run, choose the snapshot to carry on from, load it
    expect(...)     once per fit, when the state has its size
    rests(...)      before each boundary at which nothing happened: whether it can be passed over
    boundary(...)   at each *clean boundary* (before the next batch, or when fit ends): build one Moment from what
                    happened since the last one, decide, and if a save is due capture, stage and queue it
    fence()         before tensors change that may still be copied (before an optimizer steps)
    resumed_at(...) when the state of the chosen snapshot is back in the framework
    stepped(...)    after each step, with its loss: the trace by which the next resume is verified
    end()           when fit is over, however it ended: make everything durable, unlock

The staged copy is committed by the writer thread: commit, journal, judge, delete, links - publish before delete.
What the decision learned is folded into the snapshot that it caused, so a resumed run decides as the uninterrupted one.
"""

from __future__ import annotations

import contextlib
import platform
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ckpt_callbacks import engine, resume
from ckpt_callbacks.engine import Decision, Event, Moment, Monitor, Past, Progress, Trigger, Verdict
from ckpt_callbacks.errors import CheckpointError, ConfigurationError, InexactError, StoreError
from ckpt_callbacks.messages import say, warn
from ckpt_callbacks.overlap import Overlap
from ckpt_callbacks.proof import Outcome, Proof
from ckpt_callbacks.resume import Restored, ResumeReport
from ckpt_callbacks.run import Run, Snapshot, resolve_reference
from ckpt_callbacks.state.arena import Arena
from ckpt_callbacks.state.copying import Copier, Copying
from ckpt_callbacks.state.packing import Packed, Packer, Staged
from ckpt_callbacks.store import LocalStore, Manifest, RunLock, Step, machine, provenance
from ckpt_callbacks.writer import Writer

__all__ = ["BaseCheckpointer", "Captured", "begin_together", "rest_together"]

Content = Literal["full", "weights"]

_AT_ONCE = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Captured:
    """What an adapter hands over at a boundary.

    Attributes:
        weights: the model's tensors under the framework's own names.
        rest: everything else that resume needs, as a tree of plain values and tensors.
        optional: paths in ``rest`` that resume does not need (hyperparameters): what can't be stored there is kept
            as its repr.
        missing: parts that resume would need and that can't be captured -> why.
        data: how a resume will reach the place in the data, in a few words.
        frozen: the names of weights that aren't trained: they are written once.
        steady: address -> tensor, of those that training should leave alone until the adapter calls `fence`: they may
            be copied meanwhile.
    """

    weights: Mapping[str, Any]
    rest: Mapping[str, Any]
    optional: tuple[str, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)
    data: str = "in place"
    frozen: Set[str] = frozenset()
    steady: Mapping[int, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Staging:
    """A snapshot that is copied beside training: why it was taken, and who waits for it."""

    copying: Copying
    reasons: tuple[str, ...]
    waiting: list[tuple[str | None, Future[Snapshot]]]


class BaseCheckpointer:
    """The face that every adapter shows, and the sequence of effects behind it. Framework-free.

    Args:
        directory: where the run lives; created when training starts.
        monitor: the metric that says which snapshot is best: a name, a `Monitor`, or several.
        mode: ``"min"``, ``"max"``, or ``"auto"`` (by the metric's name).
        min_delta: by how much a value must improve to count.
        save: triggers, see `ckpt_callbacks.engine.triggers`. Default: every epoch, on best (with a monitor), at the
            end, on an exception and on SIGTERM.
        keep: retention rules, see `ckpt_callbacks.engine.retention`. Default: the latest 2 and the best 1.
        content: ``"full"`` can be resumed from; ``"weights"`` keeps the model only.
        resume: ``"auto"``, ``"must"``, ``"never"`` or a reference such as ``"runs/a@best"``.
        deterministic_data: you vouch that data which can only be drawn again from their beginning (a Python
            generator) give the same batches then.
        exact: what to do about state that can't be captured: ``"warn"`` or ``"require"``.
        background: write on a thread of its own; ``False`` returns only when durable.
        durability: ``"full"`` (fsync) or ``"none"``.
        on_error: a failed save: ``"raise"`` at the next hook, or ``"warn"`` and try again at the next trigger.
        mirrors: further places that receive every snapshot (not available yet).

    Raises:
        ConfigurationError: for an argument that can't work.
    """

    #: What the manifest says wrote it.
    framework = "none"
    #: Whose snapshots this adapter can carry on from.
    reads: tuple[str, ...] = ("none",)
    #: How the framework is asked for kernels that give the same bits each time.
    determinism = "deterministic kernels"

    def __init__(
        self,
        directory: str | Path,
        *,
        monitor: str | Monitor | Sequence[str | Monitor] | None = None,
        mode: str = "auto",
        min_delta: float = 0.0,
        save: Trigger | Callable[[Moment], bool] | Iterable[Any] | None = None,
        keep: Any = None,
        content: Content = "full",
        resume: str | Path = "auto",
        deterministic_data: bool = False,
        exact: Literal["warn", "require"] = "warn",
        background: bool = True,
        durability: Literal["full", "none"] = "full",
        on_error: Literal["raise", "warn"] = "raise",
        mirrors: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.directory = _local_directory(directory)
        self.monitors = engine.resolve_monitors(monitor, mode, min_delta)
        self.trigger = engine.resolve_triggers(save, self.monitors)
        self.rules = engine.resolve_rules(keep, self.monitors)
        self.content = _one_of("content", content, ("full", "weights"))
        self.deterministic_data = _one_of("deterministic_data", deterministic_data, (True, False))
        self.exact = _one_of("exact", exact, ("warn", "require"))
        self.on_error = _one_of("on_error", on_error, ("raise", "warn"))
        self._resume = _resume_policy(resume)
        if mirrors:
            raise ConfigurationError(f"mirrors are not available yet: expected an empty tuple, found {mirrors!r}.")
        self._store = LocalStore(self.directory, durability=_one_of("durability", durability, ("full", "none")))
        self._writer = Writer(background)
        self._packer, self._arena, self._copier = Packer(), Arena(), Copier()
        self._overlap, self._torn = Overlap(), False
        self._staged_at: float | None = None  # on the monotonic clock: the boundary just before this one
        self._staging: _Staging | None = None  # what may still be copied beside training
        self._again: tuple[str, ...] = ()  # why a snapshot must be taken that could not be copied so
        self._lock: RunLock | None = None
        self._past = Past()
        self._until = _AT_ONCE  # when the next decision can be due
        self._passed: tuple[int, int, float] | None = None  # the last boundary since then at which nothing could be
        self._began = 0.0  # monotonic clock when this process began to train, less what earlier ones trained
        self._parent: str | None = None
        self._manual: list[tuple[str | None, Future[Snapshot]]] = []
        self._pending: list[Future[Any]] = []
        self._missing: dict[str, str] = {}
        self._versions: dict[str, str] = {}
        self._machine: dict[str, str] = {}
        self._proof = Proof({})
        self._trains = threading.get_ident()  # the thread that trains
        self._first = True
        self.resumed: ResumeReport | None = None

    # The face ------------------------------------------------------------------------------------------------------

    @property
    def latest(self) -> Snapshot | None:
        """The newest committed snapshot, or None."""
        return self._run.latest if self._store.exists() else None

    @property
    def best(self) -> Snapshot | None:
        """The committed snapshot with the best value of the (first) monitor, or None without one."""
        if not self.monitors or not self._store.exists():
            return None
        return self._run.best(self.monitors[0])

    def snapshots(self) -> list[Snapshot]:
        """All committed snapshots, oldest first."""
        return self._run.snapshots() if self._store.exists() else []

    def save(self, note: str | None = None) -> Future[Snapshot]:
        """Ask for a snapshot at the next clean boundary; its `result()` is the snapshot once it is durable.

        A request made while no fit runs is for the next one.
        """
        future: Future[Snapshot] = Future()
        self._manual.append((note, future))
        return future

    def wait(self) -> None:
        """Return when every snapshot taken so far is durable. A request by `save` has a future of its own.

        Raises:
            StoreError: with ``on_error="raise"``, if one could not be written.
        """
        self._wait_for_writer()
        self._raise_failed()

    def _wait_for_writer(self) -> None:
        if threading.get_ident() == self._trains:  # nobody else can tell whether a copy is whole
            self.fence()
        self._writer.wait()

    @property
    def best_model_path(self) -> str:
        """Path of the best snapshot (of the latest without a monitor) once it is durable; "" if there is none.

        With a monitor whose metric was never measured there is no best one, and the latest is not passed off as it.
        """
        self._wait_for_writer()
        snapshot = self.best if self.monitors else self.latest
        return str(snapshot.path) if snapshot else ""

    @property
    def _run(self) -> Run:
        return Run(self.directory)

    # What adapters call --------------------------------------------------------------------------------------------

    def begin(
        self,
        versions: Mapping[str, str],
        devices: Mapping[str, str] | None = None,
        *,
        load: str | Path | None = None,
    ) -> Restored | None:
        """Lock the run and read the snapshot to carry on from.

        Args:
            versions: the framework packages and their versions, for the manifest.
            devices: what else can change bits: the devices that are trained on, the number of threads.
            load: a snapshot that the user named for this fit; it wins over ``resume=``.

        Raises:
            ResumeError: ``resume="must"`` without a snapshot, ``"never"`` with a run in the directory, or a named
                snapshot that holds only weights.
            CorruptSnapshotError: a named snapshot that does not verify.
            RunLockedError: another process trains in this directory.
        """
        self._forget()
        self._versions, self._machine = dict(versions), {**machine(), **(devices or {})}
        self._lock = self._lock or self._store.lock()
        self._store.open()
        choice = resume.choose(self._store, self._resume, reads=self.reads, load=load, first=self._first)
        self._first = False
        self._trace(choice)
        if choice is None:
            return None
        self._past = Past.from_dict(choice.snapshot.manifest.past)
        self._parent = choice.snapshot.id
        self._began = time.monotonic() - self._past.elapsed
        return resume.read(choice)

    def _trace(self, choice: resume.Choice | None) -> None:
        """Begin to record steps, and wait for those on record that will be computed again."""
        if self.content != "full":
            return
        ours = choice is not None and choice.snapshot.run_path.resolve() == self._store.root.resolve()
        if choice is not None and ours:
            self._proof = Proof(self._store.trace.after(choice.snapshot.progress.batches))
        self._store.trace.open(afresh=not ours)

    def _forget(self) -> None:
        """Begin anew: an earlier fit that died of an exception may still be writing, and is not asked any more."""
        self.fence()
        self._writer.wait()
        self._pending, self._missing, self._proof, self._packer = [], {}, Proof({}), Packer()
        self._trains = threading.get_ident()
        self._overlap, self._torn, self._again, self._staged_at = Overlap(), False, (), None
        self._past, self._parent, self._began, self.resumed = Past(), None, time.monotonic(), None
        self._until, self._passed = _AT_ONCE, None

    def read(self, reference: str | Path) -> Restored:
        """Read a snapshot that the user named, for evaluation; the run is not touched.

        Raises:
            SnapshotNotFoundError, CorruptSnapshotError: about the snapshot.
        """
        return resume.read(resume.load(resolve_reference(reference)))

    def rehearse(self, captured: Captured) -> int:
        """Try once, when training starts, whether the state can be stored; say in a line how exact a resume will be.

        Returns:
            How many bytes it would take now; 0 if only weights are kept.

        Raises:
            InexactError: with ``exact="require"``, before anything is written.
        """
        if self.content != "full":
            return 0
        packed = self._pack(captured)
        but = f" but for {', '.join(self._missing)}" if self._missing else ""
        say(f"killed at any time, this run resumes exactly{but}; its place in the data: {captured.data}")
        return sum(image.size for image in packed.images.values())

    def expect(self, nbytes: int) -> None:
        """Make memory ready for snapshots of about this size, in the background: memory that is new takes time."""
        if self._writer.background and self.content == "full":
            self._copier.begin(lambda: self._arena.warm(nbytes))

    def resumed_at(
        self,
        restored: Restored,
        *,
        skipped: int = 0,
        replayed: int = 0,
        seconds: float = 0.0,
        complete: bool = False,
    ) -> ResumeReport:
        """Note that ``restored`` is back in the framework, and tell the user in one line.

        Args:
            restored: what `begin` gave.
            skipped, replayed: batches passed over by index, and drawn again, to reach its place in the data.
            seconds: the time that took.
            complete: training had nothing left to do.
        """
        progress = restored.snapshot.progress
        parts = dict.fromkeys(("weights", "optimizer", "random state", "callbacks", "metrics", "data"), "exact")
        parts |= {"data": f"skipped: {skipped} batches"} if skipped else {}
        parts |= {"data": f"replayed: {replayed} batches"} if replayed else {}
        parts |= {path: f"not captured: {why}" for path, why in {**restored.missing, **self._missing}.items()}
        here = {"python": platform.python_version(), **self._versions, **self._machine}
        self.resumed = ResumeReport(
            *(restored.snapshot, progress.step, progress.epoch, progress.batch),
            skipped=skipped,
            replayed=replayed,
            seconds=seconds,
            parts=parts,
            complete=complete,
            differences=resume.differences(restored.snapshot, here),
        )
        say(str(self.resumed))
        if self.resumed.differences:
            warn(
                f"not as it was when the snapshot was taken: {self.resumed.changed()}. It resumes all the same, but "
                "the order in which numbers are summed up may change with it, and with that the last bits"
            )
        moved = {"skipped": skipped, "replayed": replayed}
        self._store.journal.append("resumed", id=restored.snapshot.id, **moved, complete=complete, **progress.as_dict())
        return self.resumed

    def stepped(self, batches: int, step: int, loss: float, fingerprint: int) -> None:
        """Note what a `Step` gave, and compare it if it was computed before. Some microseconds; from any thread."""
        self._store.trace.record(batches, step, loss, fingerprint)
        if self._proof.waits and (outcome := self._proof.saw(Step(batches, step, loss, fingerprint))) is not None:
            self._proved(outcome)

    def _proved(self, outcome: Outcome) -> None:
        """Tell the user whether steps computed again gave the same bits."""
        report = self.resumed
        if report is None:  # another callback's snapshot led this fit, and its owner tells
            return
        report.proof = outcome
        if outcome.differs is None:
            say(str(outcome))
        else:
            warn(f"{outcome}. Likely causes: {'; '.join(report.likely_causes(self.determinism))}")
        differs = outcome.differs[1].step if outcome.differs is not None else None
        self._store.journal.append("verified", identical=outcome.identical, unknown=outcome.unknown, differs=differs)

    def rests(self, step: int, batches: int) -> bool:
        """Whether nothing can be due at this clean boundary, if nothing happened since the last one that `boundary` was
        told of: it need not be told of this one. A microsecond.

        Args:
            step, batches: as in `Progress`.
        """
        due_step, due_batches, due_time = self._until
        now = time.monotonic()
        if step >= due_step or batches >= due_batches or now >= due_time:
            return False
        if self._manual or self._pending or self._again:
            return False
        self._passed = step, batches, now
        return True

    def boundary(
        self,
        progress: Progress,
        events: Event,
        metrics: Mapping[str, Any],
        capture: Callable[[], Captured],
    ) -> Future[Any] | None:
        """Decide at a clean boundary, and stage a snapshot if one is due.

        Args:
            progress: where training stands.
            events: what happened since the last boundary.
            metrics: what was measured since the last boundary.
            capture: gives the state of this very moment; called only if a save is due.

        Returns:
            A future of the committed `Snapshot`, or None.
        """
        self.fence()
        note = None
        if self._manual:
            events |= Event.MANUAL
            note = self._manual[0][0]
        now = time.monotonic()
        if self._staged_at is not None:
            self._overlap.took(now - self._staged_at)
            self._staged_at = None
        moment = Moment(progress, now - self._began, events, metrics, note)
        decision = engine.decide(moment, self._seen(), self.trigger, self.monitors)
        self._past, rest = decision.past, decision.rest
        self._until = (
            progress.step + rest.steps,
            progress.batches + rest.batches,
            self._began + moment.elapsed + rest.seconds,
        )
        if self._pending:
            self._raise_failed()
        again, self._again = self._again, ()
        reasons = tuple(dict.fromkeys((*decision.reasons, *again)))
        return self._stage(moment, replace(decision, reasons=reasons), capture()) if reasons else None

    def fence(self) -> None:
        """Return when none of training's tensors is being copied any more: it may change them now.

        A copy of tensors that were changed all the same is discarded, and the next boundary takes another.
        """
        staging = self._staging
        if staging is None:
            return
        whole = staging.copying.conclude()
        self._staging = None
        if not whole:
            self._torn, self._again, self._manual[:0] = True, staging.reasons, staging.waiting
            say("weights changed while they were copied: that copy is discarded, and others are made at once")
            self._store.journal.append("torn", reasons=list(staging.reasons))

    def _seen(self) -> Past:
        """What decisions remember, the boundaries included that were passed over since the last one."""
        passed, self._passed = self._passed, None
        if passed is None:
            return self._past
        step, batches, now = passed
        return self._past.passed(step, batches, now - self._began)

    def end(self) -> None:
        """Make everything durable and let go of the run. Safe to call more than once.

        Raises:
            StoreError: with ``on_error="raise"``, if a snapshot could not be written.
        """
        try:
            self.fence()
            self._arena.clear()
            self._copier.close()
            outcome = self._proof.outcome()
            if outcome is not None:
                self._proved(outcome)
            self._writer.close()
            self._raise_failed()
        finally:
            self._arena.clear()
            _FITTED.add(self.directory)
            self._store.trace.close()
            if self._lock is not None and not self._writer.busy:  # Ctrl-C while waiting: the thread still commits
                self._lock.release()
                self._lock = None
            requests, self._manual = self._manual, []
            for _, future in requests:
                _answer(future, StoreError("training ended before the next clean boundary; nothing was saved"))

    # Save ----------------------------------------------------------------------------------------------------------

    def _stage(self, moment: Moment, decision: Decision, captured: Captured) -> Future[Any]:
        """Copy the state aside and queue its commit."""
        draft = self._draft(moment, decision)
        waiting, self._manual = self._manual, []
        try:
            packed = self._pack(captured)
            self._writer.make_room()
            steady = self._may_be_copied_later(moment, captured)
            self._staged_at = self._began + moment.elapsed
            staged = packed.stage(self._arena, steady)
            if staged.copying.unfinished:
                self._copier.begin(staged.copying.work)
                self._staging = _Staging(staged.copying, decision.reasons, waiting)
            done = self._writer.submit(lambda: self._commit(draft, staged))
        except BaseException as error:
            self._staging = None
            for _, future in waiting:
                _answer(future, error)
            raise
        done.add_done_callback(lambda finished: _settle(finished, [future for _, future in waiting]))
        self._pending.append(done)
        return done

    def _may_be_copied_later(self, moment: Moment, captured: Captured) -> Mapping[int, Any]:
        """The tensors that are copied beside training: none, if the state could not be taken as well a batch later.

        That is so where something happened or was measured, such as the best value yet. A request can wait.
        """
        plain = moment.events in (Event.NONE, Event.MANUAL) and not moment.metrics
        possible = plain and captured.steady and self._writer.background and not self._torn
        return captured.steady if possible and self._overlap.pays() else {}

    def _draft(self, moment: Moment, decision: Decision) -> Manifest:
        """The manifest, but for what only the commit knows: id, sequence, parent and files."""
        return Manifest.draft(
            progress=moment.progress,
            elapsed=moment.elapsed,
            metrics=_numbers(moment.metrics),
            reasons=decision.reasons,
            past=decision.past.as_dict(),
            content=self.content,
            note=moment.note,
            finished=bool(moment.events & Event.FIT_END),
            framework=self.framework,
            versions=self._versions,
            monitors=[monitor.as_dict() for monitor in self.monitors],
            provenance={**provenance(), "machine": self._machine},
        )

    def _pack(self, captured: Captured) -> Packed:
        """Lay the state out as files; name what resume will lack, or refuse, as ``exact=`` says."""
        rest = captured.rest if self.content == "full" else None
        packed = self._packer.pack(
            captured.weights,
            rest,
            optional=captured.optional,
            missing=captured.missing,
            frozen=captured.frozen,
        )
        if rest is not None:
            self._name_missing(packed.missing)
        return packed

    def _name_missing(self, missing: Mapping[str, str]) -> None:
        if missing and self.exact == "require":
            raise InexactError(dict(missing))
        for path in missing.keys() - self._missing.keys():
            warn(f"not captured, and a resume will lack it: {path} ({missing[path]})")
        self._missing.update(missing)

    def _commit(self, draft: Manifest, staged: Staged) -> Snapshot | None:
        """Publish, then tidy: runs on the writer's thread. None: training changed what was being copied."""
        try:
            if not staged.copying.verdict():
                return None
            manifest = self._store.commit(replace(draft, parent=self._parent), staged.files())
            staged.learn()
        finally:
            staged.release()
        self._parent = manifest.id
        self._store.journal.append(
            "saved", id=manifest.id, reasons=list(manifest.reasons), **manifest.progress.as_dict()
        )
        try:
            self._retain()
        except Exception as error:  # noqa: BLE001 - a rule of the user's, or a busy disk: the snapshot is safe all the same
            warn(f"{manifest.id} is saved, but older snapshots could not be tidied up: {error!r}")
        return self._run.get(manifest.id)

    def _retain(self) -> Verdict:
        """Delete what no rule keeps, and point the links at what is best and latest now."""
        records = self._store.records()
        verdict = engine.judge(records, self.rules)
        for dropped, why in verdict.drop.items():
            if self._store.delete(dropped):
                self._store.journal.append("dropped", id=dropped, why=why)
        kept = [record for record in records if record.id in verdict.keep]
        self._store.link("latest", kept[-1].id)
        best = engine.best_of(kept, self.monitors[0]) if self.monitors else None
        if best is not None:
            self._store.link("best", best.id)
        return verdict

    def _raise_failed(self) -> None:
        """Let the failure of an earlier save be seen here, once."""
        finished = [future for future in self._pending if future.done()]
        self._pending = [future for future in self._pending if not future.done()]
        errors = [error for error in (future.exception() for future in finished) if error is not None]
        if errors and self.on_error == "raise":
            for further in errors[1:]:
                warn(f"a further save failed: {further}")
            raise errors[0]
        for error in errors:
            warn(f"a save failed, training goes on and the next trigger tries again: {error}")


_FITTED: set[Path] = set()
"""The runs that fits of this process ended in."""


def begin_together(
    checkpointers: Sequence[BaseCheckpointer],
    versions: Mapping[str, str],
    devices: Mapping[str, str],
    *,
    load: str | Path | None = None,
) -> tuple[BaseCheckpointer, Restored] | None:
    """Begin a fit that several checkpointers watch: each remembers its own past, the farthest snapshot gives the state.

    Returns:
        The snapshot to carry on from and whose it is, or None.

    Raises:
        As `BaseCheckpointer.begin`; none of them holds its run then.
    """
    try:
        begun = [(one, one.begin(versions, devices, load=load)) for one in checkpointers]
    except CheckpointError:
        for one in checkpointers:
            one.end()
        raise
    found = [(one, restored) for one, restored in begun if restored is not None]
    for one, restored in found:
        if one.directory in _FITTED and not restored.named:
            say(
                f"an earlier fit of this process ended in {one.directory}, and this one carries it on: "
                "a fit that shall begin anew needs a directory of its own"
            )
    return max(found, key=lambda pair: pair[1].snapshot.progress.batches, default=None)


def rest_together(checkpointers: Sequence[BaseCheckpointer], step: int, batches: int) -> bool:
    """Whether none of them can have anything to do at a boundary before which nothing happened: see their `rests`."""
    for one in checkpointers:  # noqa: SIM110 - a generator would take as long as all else
        if not one.rests(step, batches):
            return False
    return True


def _settle(finished: Future[Any], waiting: list[Future[Snapshot]]) -> None:
    """Hand the outcome of a commit to everyone who asked for that snapshot, unless it is taken once more."""
    outcome = finished.exception() or finished.result()
    for future in waiting if outcome is not None else ():
        _answer(future, outcome)


def _answer(future: Future[Snapshot], outcome: Any) -> None:
    """Resolve a request, unless whoever made it no longer wants an answer."""
    if not future.set_running_or_notify_cancel():
        return
    if isinstance(outcome, BaseException):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The metrics that are single numbers, as floats; what else a user logs is not for the manifest."""
    numbers = {}
    for name, value in metrics.items():
        with contextlib.suppress(ConfigurationError):
            numbers[name] = engine.to_float(value, name)
    return numbers


def _one_of(name: str, value: Any, allowed: tuple[Any, ...]) -> Any:
    if value not in allowed:
        expected = " or ".join(repr(one) for one in allowed)
        raise ConfigurationError(f"{name}={value!r} is not known: expected {expected}.")
    return value


def _local_directory(directory: str | Path) -> Path:
    """The run's directory, absolute: a program may change its own while it trains."""
    if not isinstance(directory, (str, Path)) or not str(directory):
        raise ConfigurationError(f"directory={directory!r}: expected a path, such as 'runs/digits'.")
    text = str(directory)
    if "://" in text:
        raise ConfigurationError(
            f"directory={text!r}: cloud stores are not available yet. Pass a local path (a mounted bucket works)."
        )
    return Path(text).expanduser().absolute()


def _resume_policy(resume: str | Path) -> str:
    if not isinstance(resume, (str, Path)) or not str(resume):
        raise ConfigurationError(
            f"resume={resume!r}: expected 'auto', 'must', 'never', or a reference such as 'runs/a@best'."
        )
    return str(resume)
