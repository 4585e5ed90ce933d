"""A run on a local (or mounted) file system, and the protocol by which snapshots are committed to it.

Invariants, at every instant and whatever is killed:

1. A snapshot is a directory in ``snapshots/`` that holds a ``manifest.json``. Nothing else is listed, ever.
2. A manifest appears only after every byte that it promises is durable; it is the last thing to be written.
3. A manifest is the first thing to disappear when a snapshot is deleted.
4. What was committed is never written to again; a manifest may be replaced by one that promises less.

From these follows the order of every operation here::

    commit  attempt directory -> data files (written, hashed, fsynced) -> manifest under another name, fsynced
            -> manifest.json by rename -> directory fsynced -> attempt renamed to its final name -> parent fsynced
    delete  manifest.json renamed away -> directory fsynced -> everything else
    demote  a list of what goes, fsynced -> a manifest without it, by rename -> directory fsynced -> those files
    clean   attempts and deletions that were cut short; only by the holder of the run lock
    aside   a damaged snapshot is renamed out of the way, never deleted

An attempt has a name that no other attempt has, and a leading dot. ``durability="none"`` leaves the fsyncs out and
changes nothing else.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from ckpt_callbacks.engine.snapshot import Record
from ckpt_callbacks.errors import (
    ConfigurationError,
    CorruptSnapshotError,
    SnapshotNotFoundError,
    StoreError,
    UnreachableError,
)
from ckpt_callbacks.limits import most, reckoned, too_large, too_much
from ckpt_callbacks.messages import warn
from ckpt_callbacks.store import manifest as manifests
from ckpt_callbacks.store.aside import Aside
from ckpt_callbacks.store.attempts import Attempts
from ckpt_callbacks.store.files import disk
from ckpt_callbacks.store.identity import Identity
from ckpt_callbacks.store.inbox import Inbox
from ckpt_callbacks.store.index import LINKS, Index, checked
from ckpt_callbacks.store.integrity import (
    Allocate,
    Read,
    listed,
    load_directory,
    read_manifest,
    senseless,
    twice,
    verify_directory,
)
from ckpt_callbacks.store.journal import Journal
from ckpt_callbacks.store.links import Links
from ckpt_callbacks.store.lock import RunLock, held_here
from ckpt_callbacks.store.manifest import DROPPED, FileInfo, Manifest
from ckpt_callbacks.store.pins import Pins
from ckpt_callbacks.store.remedies import remedy, told
from ckpt_callbacks.store.trace import Trace
from ckpt_callbacks.store.writing import SMALL, TEMPORARY, Chunks, Durability, DurableFiles

__all__ = ["LocalStore"]


_DEMOTED = ".demoted"
_ELSEWHERE = "Choose another directory if that does not help."
_DIGITS = 9

Bad = tuple[str, list[str]]
"""A damaged snapshot: its id, and what is wrong with it."""


class LocalStore:
    """The snapshots of one run.

    Args:
        root: the run's directory; it is created by `open`, `lock` or the first `commit`.
        durability: ``"full"`` survives a power cut, ``"none"`` (no fsync) survives a killed process.
    """

    def __init__(self, root: str | Path, durability: Durability = "full") -> None:
        if durability not in ("full", "none"):
            raise ConfigurationError(f"durability={durability!r} is not known: expected 'full' or 'none'.")
        self.root = Path(os.path.abspath(root))  # a program may change its directory while it trains
        self._files = DurableFiles(durability)
        self.journal = Journal(self.root / "events.jsonl")
        self.trace = Trace(self.root / "trace.bin")
        self.inbox = Inbox(self.root)
        self.attempts = Attempts(self.root / ".resuming", self.root / ".deadly", self._files)
        # Of the best weights, by themselves: between two attempts lies one to resume, mostly from another snapshot.
        self.restoring = Attempts(self.root / ".restoring", self.root / ".deadly-weights", self._files)
        self._snapshots = self.root / "snapshots"
        self._pins = Pins(self.root / "pins", self._files)
        self._aside = Aside(self.root / "damaged", self._files)
        self._links = Links(self.root, self._aside)
        self._index = Index.of(self.root)
        self._identity = Identity(self.root, self._files)
        self._lock: RunLock | None = None
        self._parent: str | None = None  # what this object committed last

    # The run -------------------------------------------------------------------------------------------------------

    def exists(self) -> bool:
        """True if the directory holds a run, be it an empty one."""
        with told(f"{self.root} can't be looked at"):
            return disk.lexists(self.root / "run.json") or self._snapshots.is_dir()

    def open(self) -> dict[str, Any]:
        """Make ready for writing: create what is missing, and clean up if this process holds the run lock.

        Returns:
            What ``run.json`` says: format, run_id and created.

        Raises:
            StoreError: the run is of a newer format, or the directory can't be written.
        """
        self._parent = None
        with self._index.turn:
            try:
                self._files.make_own(self._snapshots)
                self._pins.make_ready()
                if held_here(self.root) or not disk.lexists(self._identity.path):
                    self.renew_identity()
            except OSError as error:
                raise StoreError(
                    f"{self.root} can't be made ready for snapshots: {error}. {remedy(error)}. {_ELSEWHERE}"
                ) from error
            facts = self.describe()
            if held_here(self.root):
                self.clean()
            return facts

    def renew_identity(self) -> bool:
        """Write ``run.json`` if it is missing or damaged, from what the snapshots say; whether it was so. Only for the
        lock's holder."""
        try:
            if self._identity.read():
                return False
        except CorruptSnapshotError as error:
            warn(f"{error} It is written anew now, from what the snapshots say")
        self._identity.write(self.run_id())
        return True

    def describe(self) -> dict[str, Any]:
        """What ``run.json`` says; empty if it is absent.

        Raises:
            CorruptSnapshotError: it is damaged.
            StoreError: it can't be read, or is of a newer format.
        """
        return self._identity.read()

    def run_id(self) -> str | None:
        """Which run this is: as ``run.json`` says, else that of its newest snapshot; None if neither tells."""
        with contextlib.suppress(StoreError):
            if isinstance(found := self.describe().get("run_id"), str):
                return found
        return next((one.run for one in reversed(self.manifests()) if one.run is not None), None)

    def lock(self) -> RunLock:
        """Take the right to write to this run, creating its directory if needed.

        What an earlier holder did to names is durable then, also if it was killed before it saw to that: nobody deletes
        a snapshot for a newer one that a power cut would take.

        Raises:
            RunLockedError: another live process has it.
            StoreError: the directory can't be made, or one inside it is a link.
        """
        try:
            self._files.make(self.root)
        except OSError as error:
            raise StoreError(f"{self.root} can't be created: {error}. {remedy(error)}. {_ELSEWHERE}") from error
        self._refuse_links()
        mine, lock = held_here(self.root), RunLock(self.root).acquire()
        try:
            for path in () if mine else (self.root.parent, self.root, self._snapshots):
                if path.is_dir():
                    self._files.sync_directory(path)
        except OSError as error:
            lock.release()
            raise StoreError(f"{self.root} can't be made durable: {error}. {remedy(error)}.") from error
        self._lock = lock
        return lock

    def _refuse_links(self) -> None:
        """See that nothing is written, moved or deleted elsewhere by way of a directory that is not the run's own."""
        for path in (self._snapshots, self._pins.path, self._aside.path, self.inbox.path):
            if (target := disk.readlink(path)) is not None:
                raise StoreError(
                    f"{path} is a link to {target}: expected a directory of the run's own, for snapshots would be "
                    "written and deleted there. Move what it points to here, or let the whole run lie there: "
                    f"{self.root.name} itself may be a link."
                )

    # Snapshots -----------------------------------------------------------------------------------------------------

    def manifests(self) -> list[Manifest]:
        """The committed snapshots, oldest first. One whose manifest can't be read is left out; see `problems`."""
        found = [known for known in self._index.look().values() if isinstance(known, Manifest)]
        return sorted(found, key=_age)

    @property
    def news(self) -> int:
        """Grows when a commit, or a look, finds that a snapshot came, went or changed by somebody else's doing."""
        return self._index.news

    def own(self) -> list[Manifest]:
        """Those that this run has taken: somebody may have put snapshots of another one beside them."""
        manifests, run = self.manifests(), self.run_id()
        return [one for one in manifests if one.run in (None, run)]

    def problems(self) -> dict[str, str]:
        """Snapshots whose manifest is there but can't be read -> why."""
        return {id: str(known) for id, known in self._index.look().items() if isinstance(known, StoreError)}

    def records(self, abandoned: Sequence[tuple[int, int]] | None = None) -> list[Record]:
        """The committed snapshots as the engine's rules see them, oldest first.

        Args:
            abandoned: what training has left behind, see `Manifest`; None: as the newest one says.
        """
        pinned, manifests = self.pins(), self.manifests()
        own = {one.id: one for one in self.own()}
        if abandoned is None:
            abandoned = next(reversed(own.values())).abandoned if own else ()
        return [
            one.record(
                pinned=one.id in pinned,
                pin_note=pinned.get(one.id),
                own=one.id in own,
                line=_line(one.sequence, abandoned) if one.id in own else 0,
            )
            for one in manifests
        ]

    def manifest(self, id: str) -> Manifest:
        """The manifest of one snapshot, read anew.

        Raises:
            SnapshotNotFoundError: there is no such snapshot.
            CorruptSnapshotError: its manifest can't be read.
        """
        try:
            found = read_manifest(self.path(id))
        except FileNotFoundError:
            raise SnapshotNotFoundError(f"{self.root} has no snapshot {id!r}.") from None
        if found.id != id and found.id.casefold() == id.casefold():  # this file system doesn't tell the two apart
            raise SnapshotNotFoundError(f"{self.root} has no snapshot {id!r}, but {found.id!r}.")
        return checked(found, id)

    def path(self, id: str) -> Path:
        """The directory of a snapshot, whether or not it exists."""
        if not manifests.plain_name(id):
            raise SnapshotNotFoundError(f"{id!r} is not the id of a snapshot: expected such as '000001200-7f3a1c'.")
        return self._snapshots / id

    def commit(self, draft: Manifest, files: Mapping[str, Chunks]) -> Manifest:
        """Write a snapshot and publish it.

        Args:
            draft: what the manifest says, but for id, sequence and files. Without a parent of its own it continues
                from the snapshot that this store committed before.
            files: name -> the file's bytes, in pieces. A large file of which the parent has every byte gets a link to
                that one in its place, where the file system has such a thing.

        Returns:
            The manifest as it was published.

        Raises:
            StoreError: it could not be written; earlier snapshots are as they were, and nothing is listed - unless
                only the very last fsync failed: then the snapshot is complete and stays.
        """
        for name in files:
            if not manifests.plain_name(name):
                raise StoreError(f"{name!r} can't be a file of a snapshot: expected a plain name without separators.")
        folded = [name.casefold() for name in (*files, manifests.NAME)]
        if len({*folded}) < len(folded):
            raise StoreError(
                f"{', '.join(files)} and {manifests.NAME} differ in upper and lower case only, which some file systems "
                "don't tell apart: expected names that differ otherwise."
            )
        for name, chunks in files.items():
            excess = too_large(name, _size_of(chunks)) or too_much(name, _needed(name, chunks))
            _require_readable(excess, draft.progress.step)
        with self._index.turn, self._writing(draft.progress.step):
            return self._commit(draft, files)

    def _commit(self, draft: Manifest, files: Mapping[str, Chunks]) -> Manifest:
        self._still_here()
        id, attempt = self._begin(draft.progress.step)
        try:
            self._index.glance()
            sequence = 1 + self._index.sequence
            earlier = self._large_files(draft.parent or self._parent)
            infos = {name: self._files.place(attempt / name, chunks, earlier) for name, chunks in files.items()}
            manifest = draft.committed(id, sequence, draft.parent or self._parent, infos, self.run_id())
            self._files.write_small(attempt / manifests.NAME, _readable(manifest))
            disk.rename(attempt, self._snapshots / id)
        except BaseException:
            self._abandon(attempt)
            raise
        self._parent = id
        self._index.see(id)
        self._files.sync_directory(self._snapshots)
        return manifest

    def _still_here(self) -> None:
        """Make sure that the run is where it was, and ours: people move and replace directories under a training."""
        if self._lock is not None and self._lock.held:
            self._files.make(self.root)
            self._refuse_links()
            self._lock.confirm()
            if not self._snapshots.is_dir():
                warn(
                    f"{self.root} was moved or deleted while it is trained in: snapshots go to a new run of that name "
                    "from now on, and those before are where they were moved to"
                )
        if not self._snapshots.is_dir():
            self.open()

    @contextlib.contextmanager
    def _writing(self, step: int) -> Iterator[None]:
        """Whatever the disk refuses here, on whatever way: the snapshot of that step could not be written."""
        try:
            yield
        except (OSError, StoreError) as error:
            refused = error.__cause__ if isinstance(error, StoreError) else error
            if not isinstance(refused, OSError):
                raise
            raise StoreError(
                f"the snapshot of step {step} could not be written to {self.root}: "
                f"{refused.strerror or refused}. Earlier snapshots are intact. {remedy(refused)}."
            ) from refused

    def delete(self, id: str) -> bool:
        """Remove a snapshot; False if it is pinned or was not there.

        Files that can't be removed now (a network file system keeps those that somebody has open) are left to `clean`.

        Raises:
            StoreError: its manifest can't be removed, so it is still a snapshot.
        """
        path = self.path(id)
        with self._index.turn, told(f"snapshot {id} can't be removed from {self.root}"):
            if self._pins.has(id):
                return False
            try:
                disk.rename(path / manifests.NAME, path / DROPPED)
            except FileNotFoundError:
                return False
            self._index.forget(id)
            if self._pins.may_have(id):
                disk.rename(path / DROPPED, path / manifests.NAME)
                return False
            with _or_later(f"what is left of snapshot {id}"):
                self._files.sync_directory(path)
                self._links.forget(id)
                self._remove(path)
        return True

    def demote(self, id: str, keeps: Callable[[str], bool]) -> bool:
        """Leave a snapshot its weights only; False if it is pinned, was not full, or not there.

        The manifest is replaced by one that promises less; what it no longer promises is removed after that.

        Args:
            id: which one.
            keeps: whether a file stays, by its name.

        Raises:
            StoreError: its manifest can't be replaced, so it is as it was.
        """
        path = self.path(id)
        with self._index.turn:
            try:
                manifest = self.manifest(id)
            except SnapshotNotFoundError:
                return False
            with told(f"{self._pins.path} can't be looked at"):
                if manifest.content != "full" or self._pins.has(id):
                    return False
            kept = {name: info for name, info in manifest.files.items() if keeps(name)}
            gone = sorted(manifest.files.keys() - kept.keys())
            reduced = replace(manifest, content="weights", files=kept)
            try:
                if disk.lexists(path / _DEMOTED):  # an earlier attempt failed
                    disk.unlink(path / _DEMOTED)
                self._files.write(path / _DEMOTED, [json.dumps(gone).encode()])
                self._files.sync_directory(path)
                self._files.write_small(path / manifests.NAME, reduced.to_bytes())
                if self._pins.may_have(id):
                    self._files.write_small(path / manifests.NAME, manifest.to_bytes())
                    disk.unlink(path / _DEMOTED)
                    return False
            except OSError as error:
                raise StoreError(
                    f"snapshot {id} can't be reduced to its weights: {error}. It is as it was. {remedy(error)}."
                ) from error
            self._index.see(id)
            self._remove_demoted(path)
        return True

    def _remove_demoted(self, path: Path) -> None:
        """Remove the files that a demotion took from the manifest; if the manifest still has them, only its mark."""
        with _or_later(f"what {path.name} needs no more"), contextlib.suppress(CorruptSnapshotError, UnreachableError):
            promised, temporary = read_manifest(path).files, f".{manifests.NAME}{TEMPORARY}"
            for name in (temporary, *_names_in(disk.read(path / _DEMOTED, manifests.MAX_BYTES))):
                if name not in promised and disk.lexists(path / name):
                    disk.unlink(path / name)
            self._files.sync_directory(path)  # the mark goes last
            disk.unlink(path / _DEMOTED)

    def clean(self) -> list[str]:
        """Remove what crashes left behind: attempts, and deletions that were cut short. Only for the lock's holder.

        A snapshot that has lost its manifest is set aside: nobody knows what it is, and it may be all there is.

        Returns:
            The names of the directories that were removed.
        """
        with self._index.turn:
            lost = self.leftovers()
            for name in lost:
                try:
                    warn(f"{name} has lost its manifest.json: set aside as {self.set_aside(name)}")
                except StoreError as error:
                    warn(f"{name} has lost its manifest.json, and stays where it is: {error}")
            leftovers = [
                name
                for name, inside in self._directories()
                if _is_attempt(name) or (manifests.NAME not in inside and name not in lost)
            ]
            # Who was killed may not have made durable that a manifest is gone, or promises less: files go after that.
            for name in leftovers:
                with _or_later(f"the leftover {name}"):
                    self._files.sync_directory(self._snapshots / name)
                    self._remove(self._snapshots / name)
            for name, inside in self._directories():
                if _DEMOTED in inside:
                    with _or_later(f"what {name} needs no more"):
                        self._files.sync_directory(self._snapshots / name)
                        self._remove_demoted(self._snapshots / name)
            for entry in listed(self.root):
                if _is_attempt(entry.name):
                    with _or_later(f"the leftover {entry.name}"):
                        disk.unlink(entry.path)
            self.inbox.clean()
        return leftovers

    def _directories(self) -> list[tuple[str, set[str]]]:
        """All of ours in `snapshots/`, with the names that each holds - which are known, or this is an error: a disk
        that doesn't answer must not make a snapshot look as if it had no manifest."""
        return [
            (entry.name, {inner.name for inner in listed(entry.path)})
            for entry in listed(self._snapshots)
            if entry.is_dir(follow_symlinks=False) and (manifests.plain_name(entry.name) or entry.name.startswith("."))
        ]

    def strangers(self) -> list[str]:
        """Directories in `snapshots/` that have no name of ours: somebody else's, so they are left alone."""
        return [
            entry.name
            for entry in listed(self._snapshots)
            if entry.is_dir(follow_symlinks=False)
            and not (manifests.plain_name(entry.name) or entry.name.startswith("."))
        ]

    # Integrity -----------------------------------------------------------------------------------------------------

    def verify(self, id: str, *, full: bool = True, read: Read | None = None) -> list[str]:
        """Compare a snapshot with its manifest.

        Args:
            id: which one.
            full: read every byte and compare digests; False compares names and sizes only.
            read: see `verify_directory`.

        Returns:
            What is wrong, as sentences that name the file; empty if nothing is.

        Raises:
            SnapshotNotFoundError: there is no such directory, or it was deleted meanwhile.
            UnreachableError: a file can't be read now.
        """
        problems = verify_directory(self._directory(id), full=full, read=read)
        return problems + self._misnamed(id)

    def load(self, id: str, allocate: Allocate) -> tuple[dict[str, memoryview], list[str]]:
        """Read a snapshot's files into memory, and compare the very bytes that were read with its manifest.

        Args:
            id: which one.
            allocate: see `ckpt_callbacks.store.integrity`.

        Returns:
            Each file's bytes; and what is wrong, as `verify` has it.

        Raises:
            SnapshotNotFoundError, UnreachableError: as `verify` does.
        """
        files, problems = load_directory(self._directory(id), allocate)
        return files, problems + self._misnamed(id)

    def _directory(self, id: str) -> Path:
        path = self.path(id)
        with told(f"{path} can't be looked at"):
            if not twice(path.is_dir):
                raise SnapshotNotFoundError(f"{self.root} has no snapshot {id!r}.")
        return path

    def _misnamed(self, id: str) -> list[str]:
        """What is wrong if a directory holds the manifest of another snapshot."""
        with contextlib.suppress(StoreError, OSError):
            if (found := read_manifest(self.path(id)).id) != id:
                return [f"{manifests.NAME} is that of another snapshot: expected {id}, found {found}."]
        return []

    def newest_good(
        self, content: Literal["full", "weights"] = "full", *, check: Callable[[str], list[str]] | None = None
    ) -> tuple[Manifest | None, list[Bad]]:
        """The run's newest snapshot of that content whose every byte is as its manifest promises.

        Args:
            content: see there.
            check: tells what is wrong with one, as `verify` does, which is asked by default.

        Returns:
            Its manifest, or None if there is none; and the damaged ones that were stepped over on the way, newest
            first, each as its id and what is wrong with it.

        Raises:
            UnreachableError: one that may be good, and newer than any that can be read, can't be read now.
        """
        known, run = self._index.look(), self.run_id()
        ours = [one for one in known.values() if isinstance(one, Manifest) and one.run in (None, run)]
        readable = [one for one in ours if one.content == content]
        stepped_over: list[Bad] = []
        found = None
        for manifest in sorted(readable, key=_age, reverse=True):
            problems = (check or self.verify)(manifest.id)
            if not problems:
                found = manifest
                break
            stepped_over.append((manifest.id, problems))
        # Where an unreadable manifest stands in the sequence can't be known; its name tells its step.
        step = found.progress.step if found else 0
        hidden = {id: one for id, one in known.items() if isinstance(one, StoreError) and _step_of(id) >= step}
        for error in hidden.values():
            if isinstance(error, UnreachableError):
                raise error
        return found, [(id, [str(error)]) for id, error in hidden.items()][::-1] + stepped_over

    def is_damaged(self, id: str) -> bool:
        """Whether a snapshot with something wrong is damaged: one that a later version of this package wrote, or that
        can't be read now, is not."""
        try:
            read_manifest(self.path(id))
        except (CorruptSnapshotError, FileNotFoundError):
            return True
        except StoreError:
            return False
        return True

    def set_aside(self, id: str) -> Path:
        """Move a damaged snapshot out of the way, to ``damaged/``; where it lies then. Only for the lock's holder.

        Raises:
            StoreError: it can't be moved.
        """
        with self._index.turn:
            try:
                target = self._aside.take(self.path(id))
            except OSError as error:
                raise StoreError(f"snapshot {id} can't be set aside: {error}. {remedy(error)}.") from error
            self._index.forget(id)
        return target

    def aside(self) -> list[Path]:
        """The snapshots that were set aside, by name; what lay in the place of a link is none."""
        return [path for name, path in self._aside.directories().items() if name.partition("+")[0] not in LINKS]

    def bring_back(self, path: Path, read: Read | None = None) -> str | None:
        """Make what was set aside a snapshot again, if it is whole now; its id. Only for the lock's holder.

        Args:
            path: where it lies.
            read: see `verify_directory`; what only a later version can read stays where it is.

        Raises:
            StoreError: it can't be moved.
        """
        with self._index.turn:
            try:
                if verify_directory(path):
                    return None
            except SnapshotNotFoundError:  # an empty directory
                return None
            manifest = read_manifest(path)
            if read is not None and not _makes_sense(path, manifest, read):
                return None
            id = manifest.id
            with told(f"{path} can't be moved back"):
                if disk.lexists(self.path(id)):
                    return None
                disk.rename(path, self.path(id))
                self._files.sync_directory(self._snapshots)
                self._files.sync_directory(path.parent)
            return id

    def leftovers(self) -> list[str]:
        """Directories that hold files but neither a manifest nor the mark of a deletion: their manifest was lost."""
        return [
            name
            for name, inside in self._directories()
            if not name.startswith(".")
            and not inside & {manifests.NAME, DROPPED}
            and any(not inner.startswith(".") for inner in inside)
        ]

    def free(self) -> int | None:
        """Bytes that the disk has left; None if it doesn't tell."""
        try:
            return disk.free(self.root)
        except OSError:
            return None

    # Pins and links ------------------------------------------------------------------------------------------------

    def pins(self) -> dict[str, str | None]:
        """Pinned ids -> the note given with the pin, or None."""
        return self._pins.notes()

    def pin(self, id: str, note: str | None = None) -> None:
        """Keep a snapshot whatever the rules say. Needs no lock.

        Raises:
            SnapshotNotFoundError: there is no such snapshot.
        """
        path = self.path(id)
        self._pins.add(id, note)
        # Looked at after the pin is there, so that no deletion can fall between.
        with told(f"{path} can't be looked at"):
            if not disk.lexists(path / manifests.NAME):
                self.unpin(id)
                raise SnapshotNotFoundError(f"{self.root} has no snapshot {id!r} to pin.")

    def unpin(self, id: str) -> None:
        """Leave a snapshot to the rules again; one that isn't pinned stays as it is."""
        self._pins.remove(self.path(id).name)

    def link(self, name: Literal["best", "latest"], id: str) -> bool:
        """Point the link ``name`` at a snapshot; whether it had to be made. Only for the lock's holder.

        A cache: where links can't be made, nothing happens. What is no link in its place, such as the directory that
        copying programs make of it, is set aside.
        """
        return self._links.point(name, id)

    def displaced(self) -> dict[str, str]:
        """The links in whose place lies something else -> what."""
        return self._links.displaced()

    # Inside --------------------------------------------------------------------------------------------------------

    def _begin(self, step: int) -> tuple[str, Path]:
        """A fresh attempt: the snapshot's id, and the directory it is written in."""
        while True:
            id = f"{step:0{_DIGITS}}-{secrets.token_hex(3)}"
            attempt = self._snapshots / f".{id}{TEMPORARY}"
            try:
                if disk.lexists(self._snapshots / id):
                    continue
                disk.mkdir(attempt)
            except FileExistsError:
                continue
            return id, attempt

    def _large_files(self, id: str | None) -> dict[FileInfo, Path]:
        """The files of a snapshot that are worth a link, if it is one of this run's."""
        known = self._index.get(id)
        if known is None:
            return {}
        return {info: self.path(known.id) / name for name, info in known.files.items() if info.size >= SMALL}

    def _remove(self, path: Path) -> None:
        """Remove a directory that is not, or no longer, a snapshot; the mark of a deletion goes last."""
        for entry in sorted(disk.list(path), key=lambda entry: entry.name == DROPPED):
            if entry.name == DROPPED:
                self._files.sync_directory(
                    path
                )  # without it, what is left would pass for a snapshot that lost its manifest
            if entry.is_dir(follow_symlinks=False):
                self._remove(Path(entry.path))
            else:
                disk.unlink(entry.path)
        disk.rmdir(path)

    def _abandon(self, attempt: Path) -> None:
        """Remove an attempt that failed, if that is possible now; else `clean` will."""
        with contextlib.suppress(OSError):
            self._remove(attempt)


def _require_readable(excess: str | None, step: int) -> None:
    """Nothing is written that no reader would take."""
    if excess is not None:
        raise StoreError(
            f"the snapshot of step {step} was not written, for it could not be read back: {excess}. Earlier snapshots "
            "are intact. Keep long lists out of the state, or make arrays or tensors of them."
        )


def _readable(manifest: Manifest) -> bytes:
    """The manifest's file."""
    raw = manifest.to_bytes()
    _require_readable(manifests.excess(raw), manifest.progress.step)
    return raw


def _size_of(chunks: Chunks) -> int:
    return sum(memoryview(chunk).nbytes for chunk in chunks)


def _needed(name: str, chunks: Chunks) -> int:
    """The memory that a file takes once it is parsed, if it is of those that are."""
    return sum(reckoned(memoryview(chunk).cast("B")) for chunk in chunks) if most(name) is not None else 0


@contextlib.contextmanager
def _or_later(what: str) -> Iterator[None]:
    """Remove now, or say that it remains: waste is worth a warning, not the end of a training run."""
    try:
        yield
    except OSError as error:
        warn(f"{what} can't be removed now ({error}); it costs space only, and the next start tries again")


def _age(manifest: Manifest) -> tuple[int, str]:
    return manifest.sequence, manifest.id


def _names_in(mark: bytes) -> list[str]:
    """The files that the mark of a demotion names; a torn one is older than the manifest that forgets them."""
    try:
        return [name for name in json.loads(mark) if manifests.plain_name(name)]
    except (ValueError, TypeError):
        return []


def _line(sequence: int, abandoned: Sequence[tuple[int, int]]) -> int:
    """0 for what training continues, else the number of the range that a snapshot was abandoned with."""
    ranges = enumerate(abandoned, start=1)
    return next((number for number, (first, last) in ranges if first <= sequence <= last), 0)


def _is_attempt(name: str) -> bool:
    """Tell whether a name is one of ours for something that isn't finished."""
    return bool(re.fullmatch(r"\..+\.partial", name))


def _makes_sense(path: Path, manifest: Manifest, read: Read) -> bool:
    try:
        return not senseless(path, manifest, read)
    except UnreachableError:
        return False


def _step_of(id: str) -> int:
    """The step that an id begins with; names that aren't ours count as the newest, so that they are looked at."""
    digits = id.partition("-")[0]
    return int(digits) if digits.isdecimal() else sys.maxsize
