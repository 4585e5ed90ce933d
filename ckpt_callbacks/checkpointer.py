"""The checkpointer: observe, save, resume. The only piece that has effects, in this order.

Theory of operation. An adapter calls these, all but `stepped` on the training thread:

    begin(...)      once per fit: lock the run, choose the snapshot to carry on from, load it
    rehearse(...)   once per fit: try whether the state can be stored, and say how exact a resume will be
    watch(...)      once per fit: look whether anything can be saved, and what is monitored is measured, from now on
    expect(...)     once per fit, when the state has its size
    rests(...)      before each boundary at which nothing happened: whether it can be passed over
    boundary(...)   at each *clean boundary* (before the next batch, or when fit ends): build one Moment from what
                    happened since the last one, decide, and if a save is due capture, stage and queue it
    fence()         before tensors change that may still be copied (before an optimizer steps)
    loading(...)    around whatever puts the state of the chosen snapshot into the framework
    resumed_at(...) when the state of the chosen snapshot is back in the framework; `arrived`, if it was another's
    stepped(...)    after each step, with its loss: the trace by which the next resume is verified
    put_best_back(...)  when training is over: the best weights into the model, if that is wanted
    end()           when fit is over, however it ended: make everything durable, unlock

The staged copy is committed by the writer thread: commit, journal, judge, delete, links - publish before delete.
What the decision learned is folded into the snapshot that it caused, so a resumed run decides as the uninterrupted one.
"""

from __future__ import annotations

import contextlib
import functools
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, ClassVar, Literal

from ckpt_callbacks import engine, resume
from ckpt_callbacks.engine import Event, Moment, Monitor, Progress, Trigger
from ckpt_callbacks.errors import ConfigurationError, StoreError
from ckpt_callbacks.messages import say, warn
from ckpt_callbacks.proof import Outcome, Proof
from ckpt_callbacks.resume import Restored, ResumeReport
from ckpt_callbacks.run import Run, Snapshot, resolve_reference
from ckpt_callbacks.saving import Content, Decisions, Keeper, Requests, Ruling, Saver
from ckpt_callbacks.saving.garbage import no_search
from ckpt_callbacks.state.captured import Captured
from ckpt_callbacks.store import LocalStore, Manifest, RunLock, Step, machine, provenance, without_secret

__all__ = ["BaseCheckpointer"]


class BaseCheckpointer:
    """The face that every adapter shows, and the sequence of effects behind it. Framework-free.

    Args:
        directory: where the run lives; created when training starts.
        monitor: the metric that says which snapshot is best: a name, a `Monitor`, or several.
        mode: ``"min"``, ``"max"``, or ``"auto"`` (by the metric's name).
        min_delta: by how much a value must improve to count.
        save: triggers, see `ckpt_callbacks.engine.triggers`. Default: every epoch, on best (with a monitor), at the
            end, on a signal, and on an exception (see `on_exception`).
        keep: retention rules, see `ckpt_callbacks.engine.retention`. Default: the latest 2 and the best 1.
        content: ``"full"`` can be resumed from; ``"weights"`` keeps the model only.
        resume: ``"auto"``, ``"must"``, ``"never"`` or a reference such as ``"runs/a@best"``.
        deterministic_data: you vouch that data which can only be drawn again from their beginning (a Python
            generator) give the same batches then.
        exact: what to do about state that can't be captured: ``"warn"`` or ``"require"``.
        background: write on a thread of its own; ``False`` returns only when durable.
        durability: ``"full"`` (fsync) or ``"none"``.
        on_error: a failed save: ``"raise"`` at the next hook, or ``"warn"`` and try again at the next trigger.
        restore_best: put the best weights into the model when training ends (also if it had stopped early, or was
            complete before); if they are damaged, the next best. The last snapshot keeps the last weights. What is the
            best so far is saved and kept then, whatever ``save`` and ``keep`` say.
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
    #: The runs that fits of this process ended in.
    ended: ClassVar[set[Path]] = set()

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
        restore_best: bool = False,
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
        self.restore_best = _one_of("restore_best", restore_best, (True, False))
        if restore_best:
            if not self.monitors:
                raise ConfigurationError("restore_best=True needs to know what is best: pass monitor= with it.")
            self.trigger, self.rules = engine.with_best(self.trigger, self.rules, self.monitors[0])
        if mirrors:
            found = without_secret(repr(mirrors))
            raise ConfigurationError(f"mirrors are not available yet: expected an empty tuple, found {found}.")
        self._store = LocalStore(self.directory, durability=_one_of("durability", durability, ("full", "none")))
        self._keeper = Keeper(self._store, self.rules, self.monitors)
        self._requests = Requests()
        self._saver = Saver(
            self._keeper,
            self._requests,
            background=background,
            content=self.content,
            exact=self.exact,
            on_error=self.on_error,
        )
        self._lock: RunLock | None = None
        self._versions: dict[str, str] = {}
        self._machine: dict[str, str] = {}
        self._first = True
        self._origin: str | None = None  # the reference that began this line of training
        self._reset()

    def _reset(self) -> None:
        """As before a fit."""
        self._decisions, self._proof = Decisions(self.trigger, self.monitors), Proof({})
        self._saved = False  # whether this fit took a snapshot
        self.stops = False  # whether somebody asked to end training, and the snapshot for that is taken
        self.resumed: ResumeReport | None = None

    # The face ------------------------------------------------------------------------------------------------------

    @property
    def latest(self) -> Snapshot | None:
        """The newest committed snapshot, or None. Not one that this training went back from."""
        return self._snapshot(max(self._records(), key=lambda one: one.sequence, default=None))

    @property
    def best(self) -> Snapshot | None:
        """The committed snapshot with the best value of the (first) monitor, or None without one. As `latest`."""
        return self._snapshot(engine.best_of(self._records(), self.monitors[0])) if self.monitors else None

    def snapshots(self) -> list[Snapshot]:
        """All committed snapshots, oldest first."""
        return self._run.snapshots() if self._store.exists() else []

    def _records(self) -> list[engine.Record]:
        """This run's own on the line that training is on: it may have gone back, and saved nothing since."""
        records = self._store.records(self._keeper.abandoned) if self._store.exists() else []
        return [one for one in records if one.own and not one.line]

    def _snapshot(self, record: engine.Record | None) -> Snapshot | None:
        return None if record is None else Snapshot(self._store.manifest(record.id), self._store.path(record.id))

    def save(self, note: str | None = None) -> Future[Snapshot]:
        """Ask for a snapshot at the next clean boundary; its `result()` is the snapshot once it is durable.

        The rules drop it like any other; `ckpt pin` keeps it.
        From any hook, thread or signal handler. (The thread that trains must not wait for the result: it would wait
        for itself.)
        A request made while no fit runs is for the next one.
        """
        return self._requests.add(note)

    def wait(self) -> None:
        """Return when every snapshot taken so far is durable. A request by `save` has a future of its own.

        From another thread than the one that trains, this may take until that one's next optimizer step: it must not
        wait for the other.

        Raises:
            StoreError: with ``on_error="raise"``, if one could not be written.
        """
        self._saver.wait()
        self._saver.raise_failed()

    @property
    def best_model_path(self) -> str:
        """Path of the best snapshot (of the latest without a monitor) once it is durable; "" if there is none.

        With a monitor whose metric was never measured there is no best one, and the latest is not passed off as it.
        """
        self._saver.wait()
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
        try:
            return self._begin(versions, devices, load)
        except BaseException:  # nobody will call `end` for what has not begun
            self._requests.hang_up()
            self._let_go()
            raise

    def _begin(
        self, versions: Mapping[str, str], devices: Mapping[str, str] | None, load: str | Path | None
    ) -> Restored | None:
        self._saver.begin()
        self._reset()
        self._versions, self._machine = dict(versions), {**machine(), **(devices or {})}
        self._lock = self._lock or self._store.lock()
        self._store.open()
        self._requests.listen(self._store.inbox)
        choice = resume.choose(self._store, self._resume, reads=self.reads, load=load, first=self._first)
        self._first = False
        parent = choice.snapshot.id if choice is not None else None
        self._keeper.begin(parent, resume.abandoned(self._store, choice))
        self._origin = choice.origin if choice is not None else None
        self._trace(choice)
        if choice is None:
            return None
        if choice.snapshot.manifest.unhealthy:
            warn(
                f"{choice.snapshot.id}, from which this run carries on, is not healthy: "
                f"{choice.snapshot.manifest.unhealthy}. To go back to an older one, name it with resume="
            )
        followed = self._decisions.followed
        promised = engine.promised(self.trigger, self.rules, followed)
        past = resume.past_of(self._store, choice, self._keeper.abandoned or (), followed, promised)
        self._decisions.carry_on(past)
        return choice.restored

    def _trace(self, choice: resume.Choice | None) -> None:
        """Begin to record steps, and wait for those on record that will be computed again."""
        if self.content != "full":
            return
        ours = choice is not None and resume.is_own(self._store, choice.snapshot)
        if choice is not None and ours:
            self._proof = Proof(self._store.trace.after(choice.snapshot.progress.batches))
        self._store.trace.open(afresh=not ours)

    def read(self, reference: str | Path) -> Restored:
        """Read a snapshot that the user named, for evaluation; the run is not touched.

        Raises:
            SnapshotNotFoundError, CorruptSnapshotError: about the snapshot.
        """
        return resume.load(resolve_reference(reference))

    def rehearse(self, captured: Captured) -> int:
        """Try once, when training starts, whether the state can be stored; say in a line how exact a resume will be.

        Returns:
            How many bytes it would take now; 0 if only weights are kept.

        Raises:
            InexactError: with ``exact="require"``, before anything is written.
        """
        nbytes = self._try(captured) if self.content == "full" else 0
        self._decisions.keep_reserve(nbytes)
        return nbytes

    def _try(self, captured: Captured) -> int:
        packed = self._saver.pack(captured)
        but = f" but for {', '.join(self._saver.missing)}" if self._saver.missing else ""
        say(f"killed at any time, this run resumes exactly{but}; its place in the data: {captured.data}")
        nbytes = sum(image.size for image in packed.images.values())
        self._keeper.preflight(nbytes)
        return nbytes

    def watch(self, validates: bool) -> None:
        """Look whether anything can ever be saved, and from now on whether what is monitored is measured at all.

        Args:
            validates: whether this fit will validate.
        """
        self._decisions.watch((monitor for rule in self.rules for monitor in rule.monitors), validates)

    def expect(self, nbytes: int) -> None:
        """Make memory ready for snapshots of about this size, in the background: memory that is new takes time."""
        self._saver.warm(nbytes)

    @contextlib.contextmanager
    def loading(self, restored: Restored) -> Iterator[None]:
        """Put ``restored`` into the framework: errors say of which snapshot they are, and should the process die, it
        counts as one that this snapshot has killed."""
        with self._store.attempts.loading(), restored.placing():
            yield

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
        self.arrived()
        progress = restored.snapshot.progress
        parts = dict.fromkeys(("weights", "optimizer", "random state", "callbacks", "metrics", "data"), "exact")
        parts |= {"data": f"skipped: {skipped} batches"} if skipped else {}
        parts |= {"data": f"replayed: {replayed} batches"} if replayed else {}
        parts |= {path: f"not captured: {why}" for path, why in {**restored.missing, **self._saver.missing}.items()}
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
        origin = restored.snapshot.run_path
        moved: dict[str, Any] = {"skipped": skipped, "replayed": replayed}
        moved |= {} if resume.is_own(self._store, restored.snapshot) else {"forked_from": str(origin)}
        self._store.journal.append("resumed", id=restored.snapshot.id, **moved, complete=complete, **progress.as_dict())
        return self.resumed

    def arrived(self) -> None:
        """The state of the chosen snapshot is in its place, this one's or another's: to get there was no training."""
        self._store.attempts.over()
        self._decisions.carry_on(self._decisions.past)

    def stepped(self, batches: int, step: int, loss: float, fingerprint: int) -> None:
        """Note what a `Step` gave, and compare it if it was computed before. Some microseconds; from any thread."""
        self._decisions.loss = loss
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
        if self._requests or self._saver.unseen or self._saver.owed:
            return False
        return self._decisions.rests(step, batches)

    def boundary(
        self,
        progress: Progress,
        events: Event,
        metrics: Mapping[str, Any],
        capture: Callable[[], Captured],
        signal: str | None = None,
    ) -> Future[Any] | None:
        """Decide at a clean boundary, and stage a snapshot if one is due.

        Args:
            progress: where training stands.
            events: what happened since the last boundary.
            metrics: what was measured since the last boundary.
            capture: gives the state of this very moment; called only if a save is due.
            signal: name of the signal that came since the last boundary, or None.

        Returns:
            A future of the committed `Snapshot`, or None.
        """
        now = time.monotonic()
        self._saver.reached(now)
        if signal is not None:
            events |= Event.SIGNAL
        waiting = self._requests.take()
        note = "; ".join(dict.fromkeys(request.note for request in waiting if request.note)) or None
        if waiting:
            events |= Event.MANUAL
            self.stops = self.stops or any(request.stop for request in waiting)
        capture = functools.cache(no_search()(capture))
        try:
            self._saver.raise_failed()
            self._forget_lost()
            ruling = self._decisions.rule(progress, now, events, metrics, note, signal, capture)
        except BaseException as error:
            for request in waiting:
                request.answer(error)
            raise
        reasons = tuple(dict.fromkeys((*ruling.decision.reasons, *self._saver.take_owed())))
        if not reasons:
            self._hold(ruling, capture)
            if Event.FIT_END in events:
                self._tell_if_nothing_was_saved()
            return None
        self._saved = True
        return self._saver.save(self._draft(ruling, reasons), capture, ruling.moment, now, waiting)

    def _hold(self, ruling: Ruling, capture: Callable[[], Captured]) -> None:
        """Have the state in reserve if it is time to: as the snapshot that an exception would cause here."""
        failed = self._decisions.in_reserve(ruling, self._saver.busy)
        if failed is None:
            return
        began, held = time.monotonic(), 0
        try:
            if reasons := failed.decision.reasons:
                held = self._saver.hold(self._draft(failed, reasons), capture, ruling.moment)
        except Exception as error:  # noqa: BLE001 - a spare copy must not end a training that needs none
            warn(f"no state can be held in memory, and an exception will save nothing: {error!r}")
            self._decisions.hold_no_more()
        else:
            self._decisions.held(time.monotonic() - began, held)

    def failed(self) -> None:
        """An exception has ended training: save the state that is held, if `on_exception` asks for it."""
        saved = self._saver.save_held()
        if saved is not None:
            saved.add_done_callback(_tell_what_is_left)

    def _tell_if_nothing_was_saved(self) -> None:
        """Training has ended well."""
        if not self._saved and not self.snapshots():
            warn(
                f"training ended, and {self.directory} has no snapshot: no trigger fired (save={self.trigger!r}). "
                "on_end() saves the state that training ends with"
            )

    def _forget_lost(self) -> None:
        """Take best values back whose snapshots came to nothing: the next that is better than what there is counts."""
        lost = list(self._saver.lost)
        if not lost:
            return
        hoped = [draft.record() for draft in self._saver.under_way()]  # before the store is looked at: none is missed
        with contextlib.suppress(StoreError):  # the disk may still be away: the next boundary looks again
            there = [*hoped, *self._records()]
            self._decisions.forget([one.metrics for one in lost], there)
            del self._saver.lost[: len(lost)]

    def fence(self) -> None:
        """Return when none of training's tensors is being copied any more: it may change them now.

        A copy of tensors that were changed all the same is discarded, and the next boundary takes another.
        """
        self._saver.fence()

    def put_best_back(self, load: Callable[[Path], Any]) -> None:
        """Put the best snapshot's weights into the model now that training is over, if ``restore_best`` asks for it.

        One that is damaged is named and set aside, and the next best takes its place; so it does if processes die of
        that one. The model stays as training left it if there is none.

        Args:
            load: copies the weights of the snapshot in a directory into the model, or raises a StoreError before it
                copies any.
        """
        if not self.restore_best:
            return
        self._saver.wait()
        tried: set[str] = set()
        for id, why in self._store.problems().items():  # it may have been the best
            if self._store.is_damaged(id):
                resume.step_over(self._store, id, [why], aside=self._lock is not None)
                tried.add(id)
        deadly = self._store.restoring.settle({one.id for one in self._store.manifests()})
        spared: set[str] = set()
        while (best := self._best_but(tried | spared)) is not None:
            if best.id in deadly:
                resume.spare_weights(self._store, best.id, deadly[best.id])
                spared.add(best.id)
                continue
            try:
                self._put_back(best, load)
            except StoreError as error:
                resume.step_over_weights(self._store, best, error, aside=self._lock is not None)
                tried.add(best.id)
                continue
            if tried and self._lock is not None:
                self._store.link("best", best.id)
            good = "good " if tried or spared else ""
            say(f"the model has the weights of the best {good}snapshot now: {best.id}")
            return
        unread = tried or spared
        what = "the best snapshots can't be read" if unread else f"no snapshot has a finite {self.monitors[0].metric!r}"
        warn(f"restore_best=True, but {what}: the model is as training left it")

    def _put_back(self, best: Snapshot, load: Callable[[Path], Any]) -> None:
        """Load it; should this process die of that, it counts. Any error is a life sign."""
        if self._lock is None:  # these files are another process's
            load(best.path)
            return
        self._store.restoring.begin(best.id)
        try:
            load(best.path)
        finally:
            self._store.restoring.over()

    def _best_but(self, tried: set[str]) -> Snapshot | None:
        records = [one for one in self._records() if one.id not in tried]
        return self._snapshot(engine.best_of(records, self.monitors[0]))

    def end(self) -> None:
        """Make everything durable and let go of the run. Safe to call more than once.

        Raises:
            StoreError: with ``on_error="raise"``, if a snapshot could not be written.
        """
        try:
            self._requests.hang_up()
            outcome = self._proof.outcome()
            if outcome is not None:
                self._proved(outcome)
            self._saver.end()
            self._saver.raise_failed()
        finally:
            self.ended.add(self.directory)
            self._let_go()
            late = self._requests.take()
            for request in late:
                request.answer(StoreError("training ended before the next clean boundary; nothing was saved"))
            if late:
                notes = ", ".join(repr(request.note) for request in late if request.note)
                warn(
                    f"a snapshot was asked for after the last boundary of training{notes and f' ({notes})'}, and is "
                    "not taken: ask before `on_train_end`. on_end() saves the state that training ended with"
                )

    def _let_go(self) -> None:
        """Other processes may have the run."""
        self._store.trace.close()
        if self._lock is not None:  # else this file is another process's
            self._store.attempts.over()
        if self._lock is not None and not self._saver.busy:  # Ctrl-C while waiting: the thread still commits
            self._lock.release()
            self._lock = None

    def _draft(self, ruling: Ruling, reasons: tuple[str, ...]) -> Manifest:
        """The manifest, but for what only the commit knows: id, sequence, parent and files."""
        moment = ruling.moment
        return Manifest.draft(
            progress=moment.progress,
            elapsed=moment.elapsed,
            metrics=engine.numbers(moment.metrics),
            reasons=reasons,
            past=ruling.decision.past.as_dict(),
            content=self.content,
            note=moment.note,
            finished=bool(moment.events & Event.FIT_END),
            framework=self.framework,
            versions=self._versions,
            monitors=[monitor.as_dict() for monitor in self.monitors],
            origin=self._origin,
            policy={"save": repr(self.trigger), "keep": [repr(rule) for rule in self.rules]},
            unhealthy=ruling.unhealthy,
            provenance={**provenance(), "machine": self._machine},
        )


def _tell_what_is_left(saved: Future[Snapshot | None]) -> None:
    if saved.exception() is None and (snapshot := saved.result()) is not None:
        say(f"training failed; its state after step {snapshot.step}, which was held in memory, is saved")


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
            f"directory={without_secret(text)!r}: cloud stores are not available yet. "
            "Pass a local path (a mounted bucket works)."
        )
    return Path(text).expanduser().absolute()


def _resume_policy(resume: str | Path) -> str:
    if not isinstance(resume, (str, Path)) or not str(resume):
        raise ConfigurationError(
            f"resume={resume!r}: expected 'auto', 'must', 'never', or a reference such as 'runs/a@best'."
        )
    return str(resume)
