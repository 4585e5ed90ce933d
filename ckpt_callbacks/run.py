"""A run and its snapshots, without any framework: `Run`, `Snapshot` and references such as ``runs/digits@best``.

Looking changes nothing and needs no lock, so a run may be read while it trains.
"""

from __future__ import annotations

import contextlib
import functools
import json
import operator
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex

from ckpt_callbacks.engine.expressions import parse_rules
from ckpt_callbacks.engine.moment import Progress
from ckpt_callbacks.engine.monitor import Monitor
from ckpt_callbacks.engine.retention import Rule, Verdict, judge
from ckpt_callbacks.engine.rules import best_of
from ckpt_callbacks.engine.rules import recorded as recorded_rule
from ckpt_callbacks.engine.rules import resolve as resolve_rules
from ckpt_callbacks.errors import (
    ConfigurationError,
    CorruptSnapshotError,
    SnapshotNotFoundError,
    StoreError,
    UnreachableError,
)
from ckpt_callbacks.store import (
    LocalStore,
    Manifest,
    note_without_secret,
    owner_of,
    read_manifest,
    unless_deleted,
    verify_directory,
    without_secret,
)

if TYPE_CHECKING:
    import numpy.typing as npt

    from ckpt_callbacks.state.tensors.safetensors_file import SafetensorsFile

__all__ = ["Problem", "Repair", "Run", "Snapshot", "Verification", "human_size", "resolve_reference"]

_WEIGHTS = re.compile(r"model(-\d+-of-\d+)?\.safetensors")


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with a snapshot.

    Attributes:
        snapshot: its id.
        text: a sentence that names the file.
        damage: False if the file can't be read now, which says nothing of its bytes.
    """

    snapshot: str
    text: str
    damage: bool = True

    def __str__(self) -> str:
        """Give both in one line."""
        return f"{self.snapshot}: {self.text}"


@dataclass(frozen=True, slots=True)
class Verification:
    """What a check of files against their manifests found; true if all is well.

    Attributes:
        checked: the ids that were looked at, oldest first.
        problems: what is wrong; empty if nothing is.
        full: True if every byte was read, False if sizes only were compared.
        strangers: directories among the snapshots that have no name of ours, and were not looked at.
        notes: what is not as it should be, and costs nothing but itself: sentences.
    """

    checked: tuple[str, ...]
    problems: tuple[Problem, ...]
    full: bool = True
    strangers: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """True if nothing is wrong."""
        return not self.problems

    def require_ok(self) -> None:
        """Raise CorruptSnapshotError if anything is wrong."""
        if self.problems:
            found = "\n".join(f"  {problem}" for problem in self.problems)
            raise CorruptSnapshotError(
                f"{len(self.problems)} problem(s) found:\n{found}\n"
                "Use another snapshot, or put the files back from a copy."
            )

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        """Give one line, or one per problem."""
        count = f"{len(self.checked)} snapshot{'' if len(self.checked) == 1 else 's'}"
        good = f"{count} checked, {'every byte' if self.full else 'sizes only'}: all good"
        others = [f"{name!a} is not a snapshot of this run: left alone" for name in self.strangers]
        return "\n".join([*(map(str, self.problems) if self.problems else [good]), *self.notes, *others])


@dataclass(frozen=True, slots=True)
class Repair:
    """What a repair did.

    Attributes:
        removed: directories that a crash had left half-written.
        aside: ids of damaged snapshots -> where they lie now.
        back: ids of those that lay aside and are snapshots again.
        forgiven: ids of those that were stepped over because processes died of them, and are tried again.
        linked: links that were made or now point at another snapshot -> its id.
        renewed: whether ``run.json`` was written anew.
        left: what is wrong still: snapshots that can't be read now, or that a later version wrote.
    """

    removed: tuple[str, ...]
    aside: Mapping[str, Path]
    back: tuple[str, ...]
    forgiven: tuple[str, ...] = ()
    linked: Mapping[str, str] = field(default_factory=dict)
    renewed: bool = False
    left: tuple[Problem, ...] = ()


@dataclass(frozen=True, repr=False)
class Snapshot:
    """A committed snapshot.

    Attributes:
        manifest: all that it says of itself.
        path: its directory.
    """

    manifest: Manifest
    path: Path

    @property
    def id(self) -> str:
        """Its name within the run, such as ``"000001200-7f3a1c"``."""
        return self.manifest.id

    @property
    def run_path(self) -> Path:
        """The directory of its run."""
        return self.path.parent.parent

    @property
    def progress(self) -> Progress:
        """Where training stood: step, epoch, batch (in the epoch) and batches (in the run)."""
        return self.manifest.progress

    @property
    def step(self) -> int:
        """Optimizer steps of the run."""
        return self.manifest.progress.step

    @property
    def epoch(self) -> int:
        """Epochs completed."""
        return self.manifest.progress.epoch

    @property
    def metrics(self) -> Mapping[str, float]:
        """What was measured since the snapshot before."""
        return self.manifest.metrics

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it was saved."""
        return self.manifest.reasons

    @property
    def created(self) -> datetime:
        """When its state was captured, in UTC."""
        return self.manifest.created

    @property
    def size(self) -> int:
        """Bytes of its files, the manifest aside."""
        return self.manifest.size

    @property
    def content(self) -> str:
        """``"full"`` (can be resumed from) or ``"weights"``."""
        return self.manifest.content

    @property
    def note(self) -> str | None:
        """What the user wrote when asking for it."""
        return self.manifest.note

    @property
    def pinned(self) -> bool:
        """True if it is kept whatever the rules say, as of now."""
        return os.path.lexists(self.run_path / "pins" / self.id)

    def weights(self) -> dict[str, npt.NDArray[Any]]:
        """The model's tensors under the framework's own names, as read-only arrays over the memory-mapped file.

        A name that shares its tensor with another one is there too. bfloat16 and the float8 types need the ml_dtypes
        package to be more than integers of the same bits.

        Raises:
            CorruptSnapshotError: the file is missing, is none (a link), or can't be parsed; `verify` tells more.
            SnapshotNotFoundError: it was deleted.
            UnreachableError: it can't be read now.
        """
        from ckpt_callbacks.state.tensors.tensor import as_numpy

        found: dict[str, npt.NDArray[Any]] = {}
        aliases: dict[str, str] = {}
        for file in self.weight_files():
            found.update((name, as_numpy(tensor)) for name, tensor in file.items())
            aliases.update(_aliases(file))
        try:
            return {**found, **{alias: found[stored] for alias, stored in aliases.items()}}
        except KeyError as error:
            raise CorruptSnapshotError(f"{self.path} has an alias of {error}, but no tensor of that name.") from None

    def weight_files(self) -> list[SafetensorsFile]:
        """The files that hold the model's tensors, opened: one, or several shards.

        Raises:
            CorruptSnapshotError, SnapshotNotFoundError, UnreachableError: as `weights` does.
        """
        from ckpt_callbacks.state.tensors.safetensors_file import open_file

        with unless_deleted(self.path):
            return [open_file(self.path / name) for name in sorted(self.manifest.files) if _WEIGHTS.fullmatch(name)]

    def verify(self, *, full: bool = True) -> Verification:
        """Compare its files with its manifest, and try whether its state can be read.

        Args:
            full: read every byte and compare digests; False compares names and sizes only.

        Raises:
            SnapshotNotFoundError: it was deleted.
        """
        if _is_run(self.run_path) and self.path.name == self.id:
            problems = _problems(self.id, lambda: LocalStore(self.run_path).verify(self.id, full=full, read=_read))
        else:  # a directory that somebody copied out of its run
            problems = _problems(self.id, lambda: verify_directory(self.path, full=full, read=_read))
        return Verification((self.id,), problems, full)

    def __repr__(self) -> str:
        metrics = "".join(f", {name}={value:.6g}" for name, value in list(self.metrics.items())[:3])
        where = f"step {self.step}, epoch {self.epoch}"
        return f"<Snapshot {self.id}: {where}{metrics}, {self.content}, {human_size(self.size)}>"


class Run:
    """The snapshots of one run, as they are on disk now.

    Args:
        directory: where a checkpointer wrote.

    Raises:
        SnapshotNotFoundError: the directory holds no run.
    """

    def __init__(self, directory: str | Path) -> None:
        path = Path(directory).expanduser()
        if not _is_run(path):
            raise SnapshotNotFoundError(_no_run(path))
        self._shown = path
        self._store = LocalStore(path)
        self.path = self._store.root

    @property
    def id(self) -> str | None:
        """The id that the run was given when it began; None if neither ``run.json`` nor a snapshot tells."""
        return self._store.run_id()

    # Looking -------------------------------------------------------------------------------------------------------

    def snapshots(self) -> list[Snapshot]:
        """The committed snapshots, oldest first; those of other runs too that somebody put here."""
        return [self._snapshot(manifest) for manifest in self._store.manifests()]

    def unreadable(self) -> dict[str, str]:
        """Snapshots that can't be listed because their manifest can't be read -> why."""
        return self._store.problems()

    def pins(self) -> dict[str, str | None]:
        """Pinned ids -> the note given with the pin, or None."""
        return self._store.pins()

    @property
    def latest(self) -> Snapshot | None:
        """The newest snapshot that this run has taken, or None."""
        return next((self._snapshot(manifest) for manifest in reversed(self._store.own())), None)

    @property
    def monitors(self) -> tuple[Monitor, ...]:
        """What the checkpointer that wrote the newest snapshot was told to monitor."""
        latest = self.latest
        recorded = latest.manifest.monitors if latest else ()
        return tuple(Monitor.from_dict(one) for one in recorded if "metric" in one)

    @property
    def policy(self) -> Mapping[str, Any]:
        """What the newest snapshot's checkpointer was told, as expressions: ``save``, and a list ``keep``."""
        latest = self.latest
        return latest.manifest.policy if latest else {}

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The retention rules of the run, as its newest snapshot has them.

        Raises:
            ConfigurationError: they aren't recorded, or one is a function of the user's, which only its program has.
        """
        texts = self._recorded_rules()
        if not texts:
            return resolve_rules(None, self.monitors)
        try:
            rules = [rule for text in texts for rule in parse_rules(text)]
            return resolve_rules(rules, self.monitors, at_most=len(rules))
        except ConfigurationError as error:
            raise ConfigurationError(
                f"the rules of {self._shown} ({', '.join(texts)[:500]}) can't be read back: {error} "
                "Say which rules shall hold."
            ) from None

    @property
    def known_rules(self) -> tuple[Rule, ...]:
        """The same, as far as anybody can know them: in the place of a function that only the run's program has stands
        a rule that keeps what this one kept last, by the journal, and lets nothing be dropped.
        """
        texts = self._recorded_rules()
        readable = {text: rule for text in dict.fromkeys(texts) if (rule := _read_back(text)) is not None}
        if readable.keys() >= set(texts):
            return self.rules
        noted = self._store.journal.kept()
        rules = [readable.get(text) or recorded_rule(text, noted) for text in texts]
        return resolve_rules(rules, self.monitors, at_most=len(rules))

    def _recorded_rules(self) -> list[str]:
        recorded = self.policy.get("keep")
        return list(map(str, recorded)) if isinstance(recorded, list) else []

    def verdict(self, rules: Rule | Iterable[Rule] | None = None) -> Verdict:
        """What rules would keep, drop and reduce to weights now, each with its reasons; nothing is changed.

        Args:
            rules: as for a checkpointer's ``keep=``; None for the run's own, see `known_rules`.
        """
        resolved = self.known_rules if rules is None else resolve_rules(rules, self.monitors)
        return judge(self._store.records(), resolved)

    def best(self, monitor: str | Monitor | None = None) -> Snapshot | None:
        """The snapshot with the best finite value, the earliest of equals.

        Args:
            monitor: what is best: a `Monitor`, the name of a metric, or None for the run's own (first) monitor.

        Returns:
            None if there is no monitor, or no snapshot with a finite value of it.

        Raises:
            ConfigurationError: a name that doesn't tell whether less or more is better; pass a `Monitor` with a mode.
        """
        chosen = self._choose(monitor)
        if chosen is None:
            return None
        listed = {snapshot.id: snapshot for snapshot in self.snapshots()}  # a record may be newer, or gone, by now
        record = best_of([record for record in self._store.records() if record.id in listed], chosen)
        return listed[record.id] if record else None

    def get(self, ref: str | SupportsIndex) -> Snapshot:
        """The snapshot that a reference names.

        Args:
            ref: ``"best"``, ``"latest"``, a step (the newest snapshot of it), or an id; a leading ``@`` may be there.

        Raises:
            SnapshotNotFoundError: there is none; the message says what there is.
            CorruptSnapshotError: its manifest can't be read.
        """
        name = ref.removeprefix("@") if isinstance(ref, str) else str(operator.index(ref))
        if name == "latest":
            return self._found(self.latest, "latest snapshot")
        if name == "best":
            return self._found(self.best(), self._why_no_best())
        if re.fullmatch(r"[0-9]{1,16}", name):
            manifests = (*self._store.manifests(), *self._store.own())  # the run's own before others
            of_step = [self._snapshot(one) for one in manifests if one.progress.step == int(name)]
            return self._found(of_step[-1] if of_step else None, f"snapshot of step {int(name)}")
        try:
            return self._snapshot(self._store.manifest(name))
        except SnapshotNotFoundError:
            return self._found(None, f"snapshot {name!r}")

    def verify(self, full: bool = True) -> Verification:
        """Compare all snapshots with their manifests, and try whether their states can be read.

        Args:
            full: read every byte and compare digests; False compares names and sizes only.
        """
        found: dict[str, tuple[Problem, ...]] = {
            id: (Problem(id, why, damage=self._store.is_damaged(id)),) for id, why in self._store.problems().items()
        }
        for snapshot in self.snapshots():
            with contextlib.suppress(SnapshotNotFoundError):  # deleted meanwhile, by the run that owns it
                found[snapshot.id] = _problems(
                    snapshot.id, functools.partial(verify_directory, snapshot.path, full=full, read=_read)
                )
        try:
            self._store.describe()
        except StoreError as error:
            found["run.json"] = (Problem("run.json", str(error), damage=isinstance(error, CorruptSnapshotError)),)
        # A live run may also be in the middle of a deletion.
        for id in [] if owner_of(self.path) else self._store.leftovers():
            found.setdefault(id, (Problem(id, "manifest.json is missing, so this is no snapshot any more."),))
        problems = tuple(one for problems in found.values() for one in problems)
        return Verification(tuple(found), problems, full, tuple(self._store.strangers()), tuple(self._notes()))

    def _notes(self) -> Iterator[str]:
        """What is to be renewed, and no damage: it can be derived from the snapshots."""
        mended = "the next training, or `ckpt repair`,"
        if self.snapshots() and not os.path.lexists(self.path / "run.json"):
            yield f"run.json is missing: {mended} writes it anew"
        if not owner_of(self.path) and (count := self._store.trace.damaged()):
            yield f"trace.bin: {count} of its records are damaged: a resume compares no step with them"
        for name, what in self._store.displaced().items():
            yield f"{name} is no link, {what} lies in its place: {mended} sets that aside and makes the link"

    # Changing ------------------------------------------------------------------------------------------------------

    def prune(self, rules: Rule | Iterable[Rule] | None = None, dry_run: bool = True) -> Verdict:
        """Judge what to keep, and delete the rest.

        Args:
            rules: retention rules as for a checkpointer's ``keep=``; None for the run's own.
            dry_run: only say what would be deleted.

        Returns:
            What is kept, dropped and reduced to weights, each with its reasons. The newest snapshot, the newest full
            and healthy ones, and pinned ones are never dropped.

        Raises:
            RunLockedError: with ``dry_run=False``, while another process trains here.
            ConfigurationError: with ``dry_run=False``, if the run's own rules can't be read back.
            CorruptSnapshotError: with ``dry_run=False``, if the newest that would stay is damaged.
        """
        if dry_run:
            return self.verdict(rules)
        from ckpt_callbacks.state.files.payload import of_weights

        with self._store.lock():
            verdict = self.verdict(self.rules if rules is None else rules)
            self._require_survivor(verdict)
            for id, why in verdict.drop.items():
                if self._store.delete(id):
                    self._store.journal.append("dropped", id=id, why=why)
            for id, why in verdict.demote.items():
                if self._store.demote(id, of_weights):
                    self._store.journal.append("demoted", id=id, why=why)
        return verdict

    def _require_survivor(self, verdict: Verdict) -> None:
        """Nothing is deleted for the sake of a snapshot to carry on from that can't be carried on from."""
        stay = [one for one in self.snapshots() if one.id in verdict.keep and one.content == "full"]
        if verdict.drop and stay and (problems := stay[-1].verify().problems):
            raise CorruptSnapshotError(
                f"{problems[0]} Nothing was pruned, since that is the newest that would stay: `ckpt repair` sets it "
                "aside, then prune again."
            )

    def kept_by(self) -> dict[str, tuple[str, ...]]:
        """Why each snapshot is kept, by the run's own rules; see `verdict`."""
        return dict(self.verdict().keep)

    def dropped(self) -> dict[str, str]:
        """Why snapshots that are gone were dropped, by the journal: id -> why, in the order in which they went."""
        return self._store.journal.dropped()

    def abandoned(self) -> frozenset[str]:
        """The ids of the run's snapshots that training left behind when it went back to an earlier one."""
        return frozenset(record.id for record in self._store.records() if record.line)

    def request(self, note: str | None = None, *, stop: bool = False, wants_answer: bool = False) -> str:
        """Ask the process that trains here, wherever it is, to save at its next clean boundary.

        Args:
            note: what the snapshot is for.
            stop: end training after it; the same command carries on later.
            wants_answer: you will ask for the `outcome`.

        Returns:
            A name to ask with.

        Raises:
            StoreError: the run's directory can't be written.
        """
        return self._store.inbox.post(note, stop=stop, wants_answer=wants_answer)

    def outcome(self, request: str) -> Mapping[str, Any] | None:
        """What came of a `request`: ``{"id": ...}`` or ``{"error": ...}``; None as long as nobody has answered."""
        return self._store.inbox.take_answer(request)

    def withdraw(self, request: str) -> None:
        """Take a `request` back that nobody has answered."""
        self._store.inbox.withdraw(request)

    def repair(self) -> Repair:
        """Set damaged snapshots aside, bring back those aside that are whole now, and renew what can be derived.

        Nothing is deleted but what a crash left half-written. Put the files of a snapshot in ``damaged/`` back from a
        copy, and it is a snapshot again.

        Raises:
            RunLockedError: another process trains here.
            StoreError: the directory can't be written.
        """
        with self._store.lock():
            renewed = self._store.renew_identity()
            removed = self._store.clean()
            forgiven = dict.fromkeys(self._store.attempts.forgive_all() + self._store.restoring.forgive_all())
            back = [id for path in self._store.aside() if (id := self._store.bring_back(path, _read)) is not None]
            problems = self.verify().problems
            aside = {}
            for problem in problems:
                if problem.damage and problem.snapshot not in aside and self._store.is_damaged(problem.snapshot):
                    aside[problem.snapshot] = self._store.set_aside(problem.snapshot)
            for id, path in aside.items():
                self._store.journal.append("set aside", id=id, aside=str(path.relative_to(self.path)))
            left = tuple(problem for problem in problems if problem.snapshot not in aside)
            linked = self._link()
        return Repair(tuple(removed), aside, tuple(back), tuple(forgiven), linked, renewed, left)

    def _link(self) -> dict[str, str]:
        """Renew the links; those that were not as they should be -> the snapshots that they point at now."""
        best, latest = self.best(), self.latest
        linked = {}
        if latest is not None and self._store.link("latest", latest.id):
            linked["latest"] = latest.id
        if best is not None and self._store.link("best", best.id):
            linked["best"] = best.id
        return linked

    def aside(self) -> list[Path]:
        """Damaged snapshots that were set aside: their directories."""
        return self._store.aside()

    def pin(self, ref: str | SupportsIndex, note: str | None = None) -> Snapshot:
        """Keep a snapshot whatever the rules say; works while the run trains.

        Args:
            ref: as for `get`.
            note: why, for whoever lists the run.
        """
        snapshot, note = self.get(ref), note_without_secret(note)
        self._store.pin(snapshot.id, note)
        self._store.journal.append("pinned", id=snapshot.id, note=note)
        return snapshot

    def unpin(self, ref: str | SupportsIndex) -> Snapshot:
        """Leave a snapshot to the rules again."""
        snapshot = self.get(ref)
        self._store.unpin(snapshot.id)
        self._store.journal.append("unpinned", id=snapshot.id)
        return snapshot

    def __repr__(self) -> str:
        return f"<Run {self._shown}: {self._what_there_is()}>"

    # Inside --------------------------------------------------------------------------------------------------------

    def _snapshot(self, manifest: Manifest) -> Snapshot:
        return Snapshot(manifest, self._store.path(manifest.id))

    def _choose(self, monitor: str | Monitor | None) -> Monitor | None:
        if isinstance(monitor, Monitor):
            return monitor
        recorded = self.monitors
        if monitor is None:
            return recorded[0] if recorded else None
        return next((one for one in recorded if one.metric == monitor), None) or Monitor(monitor)

    def _found(self, snapshot: Snapshot | None, what: str) -> Snapshot:
        if snapshot is None:
            raise SnapshotNotFoundError(f"{self._shown} has no {what}: it has {self._what_there_is()}.")
        return snapshot

    def _why_no_best(self) -> str:
        if not self.monitors:
            return "best snapshot, because no monitor was given (Run(...).best('val_loss') names one)"
        return f"best snapshot, because none has a finite {self.monitors[0].metric!r}"

    def _what_there_is(self) -> str:
        steps = [str(snapshot.step) for snapshot in self.snapshots()]
        count = len(steps)
        if count > 10:
            steps = [*steps[:3], "...", *steps[-3:]]
        readable = {0: "no snapshots", 1: f"1 snapshot: step {''.join(steps)}"}
        listed = readable.get(count, f"{count} snapshots: steps {', '.join(steps)}")
        unreadable = self._store.problems()
        return listed + (f", and {len(unreadable)} with an unreadable manifest" if unreadable else "")


def resolve_reference(reference: str | Path) -> Snapshot:
    """The snapshot that a reference names, wherever it is.

    Args:
        reference: a run's directory (its latest snapshot), ``directory@best``, ``directory@latest``, ``directory@1200``
            (a step), ``directory@<id>``; or the path of a snapshot's own directory, or of the links ``best`` and
            ``latest`` in a run (which need not exist).

    Raises:
        SnapshotNotFoundError: it names nothing; the message says what there is.
        CorruptSnapshotError: it names a snapshot whose manifest can't be read.
    """
    text = os.fspath(reference)
    if "://" in text:
        raise SnapshotNotFoundError(
            f"{without_secret(text)} names no snapshot: cloud stores are not available yet. Name one by a local path."
        )
    whole = Path(text).expanduser()
    if _is_run(whole):
        return Run(whole).get("latest")
    if whole.name in ("best", "latest") and _is_run(whole.parent):
        return Run(whole.parent).get(whole.name)
    if (whole / "manifest.json").is_file():
        path = whole.resolve() if whole.is_symlink() else Path(os.path.abspath(whole))
        return Snapshot(read_manifest(path), path)
    directory, at, name = text.rpartition("@")
    if at and directory and not whole.exists():
        return Run(directory).get(name)
    raise SnapshotNotFoundError(_no_run(whole))


def _read(directory: Path, manifest: Manifest) -> None:
    """Try whether a snapshot's state can be read, if its files hold one; no tensor is made."""
    from ckpt_callbacks.state.files import payload  # takes time to import, which only this shall pay

    if payload.TREE in manifest.files:
        payload.check(directory, manifest.content)


def _problems(id: str, look: Callable[[], list[str]]) -> tuple[Problem, ...]:
    try:
        return tuple(Problem(id, text) for text in look())
    except UnreachableError as error:
        return (Problem(id, str(error), damage=False),)


def human_size(size: int) -> str:
    """Bytes for people: ``"1.2 MB"`` (powers of 1000)."""
    value, units = float(size), ["B", "kB", "MB", "GB", "TB", "PB"]
    while value >= 999.5 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.0f} {units[0]}" if units[0] == "B" or value >= 99.5 else f"{value:.3g} {units[0]}"


def _aliases(file: SafetensorsFile) -> dict[str, str]:
    """Names of tied weights -> the name under which their one copy is stored."""
    try:
        aliases = json.loads(file.metadata.get("aliases", "{}"))
        return {str(alias): str(stored) for alias, stored in aliases.items()}
    except (ValueError, AttributeError, RecursionError) as error:
        raise CorruptSnapshotError(f"{file.path}: the header's aliases can't be parsed: {error}.") from error


def _read_back(text: str) -> Rule | None:
    """A rule of its recorded expression; None if only the run's program has it."""
    try:
        (rule,) = parse_rules(text)
    except (ConfigurationError, ValueError):
        return None
    return rule


def _is_run(path: Path) -> bool:
    return LocalStore(path).exists()


def _no_run(path: Path) -> str:
    """Why a path is no run, and what is near it."""
    if path.is_dir():
        inside = sorted(entry.name for entry in path.iterdir() if entry.is_dir() and _is_run(entry))
        found = f"it holds the runs {', '.join(inside[:5])}: name one of them" if inside else "it has no snapshots"
    elif path.exists():
        found = "it is a file"
    else:
        beside = path.parent.is_dir() and sorted(e.name for e in path.parent.iterdir() if e.is_dir() and _is_run(e))
        found = f"it does not exist; beside it are {', '.join(beside[:5])}" if beside else "it does not exist"
    return (
        f"{without_secret(str(path))} is not a run: {found}. "
        "Expected a directory that a Checkpointer wrote (with run.json and snapshots)."
    )
