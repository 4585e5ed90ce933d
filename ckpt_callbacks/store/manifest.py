"""The manifest, format 1: what a snapshot says of itself, and the record that it was committed.

`manifest.json` is ASCII JSON. Its last member is ``digest``, over every byte of the file before the line on which it
stands, so that a change to the manifest itself is seen; each data file is there with its size and digest. Numbers
that JSON doesn't know are the strings ``"nan"``, ``"inf"`` and ``"-inf"``. Fields that this version doesn't know are
kept as they are. All others are checked when they are read, so that nobody after that need doubt types and ranges.
"""

from __future__ import annotations

import contextlib
import json
import math
import platform
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from typing import Any, Literal, NoReturn

import xxhash

from ckpt_callbacks.engine.moment import Progress
from ckpt_callbacks.engine.monitor import Monitor
from ckpt_callbacks.engine.snapshot import Record
from ckpt_callbacks.errors import ConfigurationError, CorruptSnapshotError, StoreError, UnreachableError
from ckpt_callbacks.limits import reckoned

__all__ = [
    *("DROPPED", "FORMAT", "NAME", "FileInfo", "Manifest", "digest_of", "excess", "finite", "plain_name"),
    "unless_newer",
]

FORMAT = 1
NAME = "manifest.json"
DROPPED = ".manifest.dropped"
"""What a deletion calls it."""
MAX_BYTES = 16 << 20
MAX_PARSED = 32 << 20
MAX_DEPTH = 64
MAX_RULES = 200  # a checkpointer takes a hundred, and adds what its monitors need
MAX_COUNT = (1 << 53) - 1
"""The largest whole number that every reader of JSON has exactly."""

_DIGEST = "xxh3-128:"
_DIGEST_FORM = re.compile(_DIGEST + "[0-9a-f]{32}")
_PLAIN = re.compile(r"[A-Za-z0-9_@+=-][A-Za-z0-9_@+=.-]{0,199}")
_DIGEST_LINE = b'\n  "digest": "'
_NON_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
_REQUIRED = ("id", "sequence", "progress", "metrics", "reasons", "past", "content", "created", "files", "digest")
_COUNTERS = ("step", "epoch", "batch", "batches")

Content = Literal["full", "weights"]


@dataclass(frozen=True, slots=True)
class FileInfo:
    """What the manifest promises of one file: ``size`` in bytes, and ``digest`` as ``"xxh3-128:<hex>"``."""

    size: int
    digest: str


@dataclass(frozen=True)
class Manifest:
    """A committed snapshot's description (or a draft of it, before the store fills in id, sequence and files).

    Attributes:
        id: the snapshot's name: its step, zero-padded, and an attempt id.
        run: id of the run that committed it; None if that was before manifests said so.
        sequence: number of the commit within the run, increasing by one; the order of snapshots.
        parent: id of the snapshot that this one continues from, or None.
        progress: where training stood.
        elapsed: training seconds of the run up to here, over all resumes.
        metrics: what was measured; may hold NaN and infinities.
        reasons: why it was saved.
        past: what the engine remembers, as JSON; opaque here.
        content: ``"full"`` can be resumed from, ``"weights"`` holds the model only.
        note: what the user wrote beside it, or None.
        finished: True if training had nothing left to do here.
        created: when its state was captured, in UTC.
        framework: which adapter wrote it, such as ``"pytorch_lightning"``.
        versions: package -> version; ``python`` and ``ckpt_callbacks`` among them.
        monitors: what "best" meant to the checkpointer: dicts of metric, mode and min_delta, the first one leading.
        unhealthy: what is not finite in it (weights, a loss), or None.
        abandoned: first and last sequence of each range of snapshots that training went back behind, before this one.
        origin: the reference with which the user began this line of training, or None.
        policy: when is saved and what is kept, as the expressions that make it: ``save``, and a list ``keep``.
        provenance: the git commit and the command line, where known, without secrets.
        files: name -> size and digest of every other file of the snapshot.
        extra: members that this version doesn't know, as they were read.
    """

    id: str
    sequence: int
    progress: Progress
    content: Content
    created: datetime
    files: Mapping[str, FileInfo]
    run: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()
    past: Mapping[str, Any] = field(default_factory=dict)
    parent: str | None = None
    elapsed: float = 0.0
    note: str | None = None
    finished: bool = False
    framework: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    monitors: tuple[Mapping[str, Any], ...] = ()
    unhealthy: str | None = None
    abandoned: tuple[tuple[int, int], ...] = ()
    origin: str | None = None
    policy: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def draft(
        cls,
        *,
        progress: Progress,
        content: Content = "full",
        metrics: Mapping[str, float] | None = None,
        reasons: Iterable[str] = (),
        past: Mapping[str, Any] | None = None,
        parent: str | None = None,
        elapsed: float = 0.0,
        note: str | None = None,
        finished: bool = False,
        framework: str | None = None,
        versions: Mapping[str, str] | None = None,
        monitors: Iterable[Mapping[str, Any]] = (),
        unhealthy: str | None = None,
        abandoned: Iterable[tuple[int, int]] = (),
        origin: str | None = None,
        policy: Mapping[str, Any] | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> Manifest:
        """A manifest without id, sequence and files, which only the commit knows. The state is captured *now*."""
        return cls(
            id="",
            sequence=0,
            progress=progress,
            content=content,
            created=datetime.now(UTC),
            files={},
            metrics={name: float(value) for name, value in (metrics or {}).items()},
            reasons=tuple(reasons),
            past=dict(past or {}),
            parent=parent,
            elapsed=float(elapsed),
            note=note,
            finished=finished,
            framework=framework,
            versions={**_own_versions(), **(versions or {})},
            monitors=tuple(dict(monitor) for monitor in monitors),
            unhealthy=unhealthy,
            abandoned=tuple(abandoned),
            origin=origin,
            policy=dict(policy or {}),
            provenance=dict(provenance or {}),
        )

    def committed(
        self, id: str, sequence: int, parent: str | None, files: Mapping[str, FileInfo], run: str | None = None
    ) -> Manifest:
        """This draft with what the commit found out.

        Raises:
            StoreError: no number is left after the highest in the run.
        """
        if sequence > MAX_COUNT:
            raise StoreError(
                f"a snapshot of this run has the sequence {sequence - 1}, after which there is none: expected less "
                f"than {MAX_COUNT}. `ckpt show` tells it of each; move that one out of snapshots/."
            )
        return replace(self, id=id, sequence=sequence, parent=parent, files=dict(files), run=run)

    @property
    def size(self) -> int:
        """Bytes of all files of the snapshot, the manifest aside."""
        return sum(info.size for info in self.files.values())

    def record(self, *, pinned: bool = False, pin_note: str | None = None, own: bool = True, line: int = 0) -> Record:
        """What the engine's rules see of this snapshot."""
        return Record(
            id=self.id,
            sequence=self.sequence,
            progress=self.progress,
            metrics=self.metrics,
            reasons=self.reasons,
            created=self.created.timestamp(),
            elapsed=self.elapsed,
            content=self.content,
            size=self.size,
            parent=self.parent,
            note=self.note,
            pinned=pinned,
            pin_note=pin_note,
            own=own,
            healthy=self.unhealthy is None,
            line=line,
        )

    def as_dict(self) -> dict[str, Any]:
        """The document as the file has it, in its order, but for its own digest; numbers are not yet strings."""
        return {
            "format": FORMAT,
            "id": self.id,
            "run": self.run,
            "sequence": self.sequence,
            "parent": self.parent,
            "progress": {name: getattr(self.progress, name) for name in _COUNTERS},
            "elapsed": self.elapsed,
            "metrics": dict(self.metrics),
            "reasons": list(self.reasons),
            "content": self.content,
            "note": self.note,
            "finished": self.finished,
            "created": self.created.astimezone(UTC).isoformat(timespec="microseconds"),
            "framework": self.framework,
            "versions": dict(self.versions),
            "monitors": [dict(monitor) for monitor in self.monitors],
            "unhealthy": self.unhealthy,
            "abandoned": [list(one) for one in self.abandoned],
            "origin": self.origin,
            "policy": dict(self.policy),
            "provenance": dict(self.provenance),
            "past": dict(self.past),
            "files": {name: {"size": info.size, "digest": info.digest} for name, info in self.files.items()},
            **self.extra,
        }

    def to_bytes(self) -> bytes:
        """The file, ready to be written."""
        # ASCII, so that a name with an undecodable byte (a lone surrogate in Python) survives.
        body = json.dumps(finite(self.as_dict()), indent=2, allow_nan=False).encode("ascii")
        head = body.removesuffix(b"\n}") + b","
        return head + _tail(digest_of(head + b"\n"))

    @classmethod
    def from_bytes(cls, raw: bytes, where: str = NAME) -> Manifest:
        """Read the file.

        Args:
            raw: its bytes.
            where: what to call it in errors.

        Raises:
            CorruptSnapshotError: it can't be parsed, lacks a required member, or was changed after it was written.
            UnreachableError: it is of a newer format than this version reads, or a later version of this package has
                written it, as it says, in a way that this one can't read.
        """
        document = _parse(raw, where)
        read = _Reader(document, where)
        if not _has_flipped_format(raw, document):
            _check_format(read, document, where)
        for name in _REQUIRED:
            read.require(name)
        _check_digest(raw, document["digest"], where)
        with unless_newer(document.get("versions")):
            return cls._from(read, document)

    @classmethod
    def _from(cls, read: _Reader, document: dict[str, Any]) -> Manifest:
        return cls(
            id=read.name("id"),
            sequence=read.count("sequence", document["sequence"]),
            run=read.optional_text("run"),
            parent=read.optional_text("parent"),
            progress=read.progress(),
            elapsed=read.finite("elapsed", document.get("elapsed", 0.0)),
            metrics={name: read.number(f"metrics.{name}", value) for name, value in read.mapping("metrics").items()},
            reasons=read.texts("reasons", document["reasons"]),
            content=read.content(),
            note=read.optional_text("note"),
            finished=read.flag("finished"),
            created=read.time("created"),
            framework=read.optional_text("framework"),
            versions=read.named_texts("versions", read.mapping("versions")),
            monitors=read.monitors(),
            unhealthy=read.optional_text("unhealthy"),
            abandoned=read.ranges("abandoned"),
            origin=read.optional_text("origin"),
            policy=read.policy(),
            provenance=read.provenance(),
            past=read.past(),
            files=read.files(),
            extra={name: value for name, value in document.items() if name not in _KNOWN},
        )


_KNOWN = frozenset({*Manifest.__dataclass_fields__, "format", "digest"} - {"extra"})


def excess(raw: bytes, where: str = NAME) -> str | None:
    """What is wrong with a manifest that is too large, or would be in memory: those of a whole run are held there."""
    if len(raw) > MAX_BYTES:
        return f"{where} has {len(raw):,} bytes: expected at most {MAX_BYTES:,}"
    if (needed := reckoned(raw)) > MAX_PARSED:
        return f"{where} would take some {needed:,} bytes of memory: expected at most {MAX_PARSED:,}"
    return None


def plain_name(name: str) -> bool:
    """Tell whether ``name`` can stand for a file of a snapshot: one part, visible, plain ASCII on every file system."""
    return _PLAIN.fullmatch(name) is not None and name != NAME


def digest_of(data: bytes) -> str:
    """The digest of ``data`` as manifests write it."""
    return _DIGEST + xxhash.xxh3_128_hexdigest(data)


def finite(value: Any) -> Any:
    """``value`` with each number that JSON doesn't know as a string, at any depth."""
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value


@cache
def _own_versions() -> dict[str, str]:
    """The versions that are known without any framework."""
    return {"python": platform.python_version(), "ckpt_callbacks": package_version()}


def package_version() -> str:
    """This package's version."""
    # Looked up, not imported: the package's own module stands above this one.
    return str(getattr(sys.modules["ckpt_callbacks"], "__version__", "unknown"))


@contextlib.contextmanager
def unless_newer(versions: object) -> Iterator[None]:
    """Read what is as it was written, as its digests tell: it is damaged if it can't be read - unless a later version
    of this package says that it wrote it. That one can.

    Args:
        versions: of whoever wrote it, as its manifest has them.

    Raises:
        UnreachableError: a later version than this one wrote it.
    """
    try:
        yield
    except CorruptSnapshotError as error:
        writer = _writer(versions)
        if writer is None or not _release(writer) > _release(package_version()):
            raise
        raise UnreachableError(
            f"{error} Every byte is as ckpt_callbacks {writer} wrote it, and this is {package_version()}: install that "
            "or a newer one."
        ) from error


def _writer(versions: object) -> str | None:
    """The version of this package that wrote a manifest, if it says so."""
    found = versions.get("ckpt_callbacks") if isinstance(versions, dict) else None
    return found if isinstance(found, str) else None


def _release(version: str) -> tuple[int, ...]:
    """The numbers of a version; none of what is no version."""
    found = re.match(r"\d{1,9}(\.\d{1,9})*", version)
    return tuple(map(int, found[0].split("."))) if found else ()


def _parse(raw: bytes, where: str) -> dict[str, Any]:
    """JSON -> a dict, within bounds and without two members of one name."""
    if (problem := excess(raw, where)) is not None:
        raise CorruptSnapshotError(f"{problem}.")
    try:
        document = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise CorruptSnapshotError(
            f"{where} is not readable JSON ({error}). Use another snapshot, or put the file back from a copy."
        ) from None
    if not isinstance(document, dict):
        raise CorruptSnapshotError(f"{where} must hold a JSON object, found {type(document).__name__}.")
    # Each level of nesting costs one opening bracket: most files need no walk.
    if raw.count(b"{") + raw.count(b"[") > MAX_DEPTH and _depth(document) > MAX_DEPTH:
        raise CorruptSnapshotError(f"{where} is nested more than {MAX_DEPTH} levels deep, which no manifest is.")
    return document


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"two members are called {twice!r}")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON; numbers that aren't finite are written as strings")


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list):
        return 0
    return 1 + max(map(_depth, value), default=0)


def _tail(digest: str) -> bytes:
    """The end of the file: all that the digest does not cover."""
    return _DIGEST_LINE + digest.encode() + b'"\n}\n'


def _check_digest(raw: bytes, digest: object, where: str) -> None:
    """See that each byte is as it was written: the digest covers what is before it, and only one end may follow it."""
    end = raw.rfind(_DIGEST_LINE)
    found = digest_of(raw[: end + 1])
    if end < 0 or found != digest:
        changed = f"expected digest {digest!r}, found {found!r}"
    elif raw[end:] != _tail(found):
        changed = f"expected that it ends with {_tail(found)[-4:]!r} after its digest, found {raw[-4:]!r}"
    else:
        return
    raise CorruptSnapshotError(
        f"{where} was changed after it was written: {changed}. Use another snapshot, or put the file back from a copy."
    )


def _check_format(read: _Reader, document: dict[str, Any], where: str) -> None:
    """Refuse what a later version has written before anything else is looked at."""
    read.require("format")
    found = read.count("format", document["format"])
    if found > FORMAT:
        writer = _writer(document.get("versions"))
        remedy = f"ckpt_callbacks {writer} wrote it: install that or a newer one" if writer else "install a newer one"
        raise UnreachableError(
            f"{where} is of format {found}; ckpt_callbacks {package_version()} reads up to format {FORMAT}. "
            f"To use it, {remedy}."
        )
    if found < 1:
        raise CorruptSnapshotError(f"{where}: expected format 1, found {found}.")


def _has_flipped_format(raw: bytes, document: dict[str, Any]) -> bool:
    """Whether a bit of the format's number is damaged: with 1 in its place, all is as its digest says."""
    found, end = document.get("format"), raw.rfind(_DIGEST_LINE)
    if found not in (3, 5, 9) or end < 0:  # a bit away from 1
        return False
    mended = raw[: end + 1].replace(b'"format": %d' % found, b'"format": 1', 1)
    return digest_of(mended) == document.get("digest")


class _Reader:
    """Takes typed values out of the document, and names what isn't as it must be."""

    def __init__(self, document: dict[str, Any], where: str) -> None:
        self.document = document
        self.where = where

    def require(self, name: str) -> None:
        if name not in self.document:
            self.refuse(name, "the member", "nothing")

    def refuse(self, name: str, expected: str, found: object) -> NoReturn:
        shown = found if found == "nothing" else repr(found)[:80]
        raise CorruptSnapshotError(f"{self.where}: {name!r}: expected {expected}, found {shown}.")

    def text(self, name: str) -> str:
        value = self.document.get(name)
        return value if isinstance(value, str) else self.refuse(name, "a string", value)

    def name(self, name: str) -> str:
        value = self.text(name)
        return value if plain_name(value) else self.refuse(name, "a plain name", value)

    def optional_text(self, name: str) -> str | None:
        return None if self.document.get(name) is None else self.text(name)

    def flag(self, name: str) -> bool:
        value = self.document.get(name, False)
        return value if isinstance(value, bool) else self.refuse(name, "true or false", value)

    def sequence(self, name: str) -> list[Any]:
        return self.items(name, self.document.get(name, []))

    def items(self, name: str, value: Any) -> list[Any]:
        return value if isinstance(value, list) else self.refuse(name, "a list", value)

    def texts(self, name: str, value: Any) -> tuple[str, ...]:
        values = self.items(name, value)
        return tuple(one if isinstance(one, str) else self.refuse(name, "a list of strings", one) for one in values)

    def mapping(self, name: str) -> dict[str, Any]:
        return self.members(name, self.document.get(name, {}))

    def members(self, name: str, value: Any) -> dict[str, Any]:
        return value if isinstance(value, dict) else self.refuse(name, "an object", value)

    def named_texts(self, name: str, value: Any) -> dict[str, str]:
        for key, one in self.members(name, value).items():
            if not isinstance(one, str):
                self.refuse(f"{name}.{key}", "a string", one)
        return dict(value)

    def count(self, name: str, value: Any) -> int:
        if type(value) is int and 0 <= value <= MAX_COUNT:
            return value
        return self.refuse(name, f"a whole number that is not negative, and at most {MAX_COUNT}", value)

    def number(self, name: str, value: Any) -> float:
        if type(value) in (int, float):
            try:
                return float(value)
            except OverflowError:
                return self.refuse(name, "a number of double precision", value)
        if isinstance(value, str) and value in _NON_FINITE:
            return _NON_FINITE[value]
        return self.refuse(name, 'a number, "nan", "inf" or "-inf"', value)

    def finite(self, name: str, value: Any) -> float:
        found = self.number(name, value)
        return found if math.isfinite(found) else self.refuse(name, "a finite number", value)

    def ranges(self, name: str) -> tuple[tuple[int, int], ...]:
        found = []
        for one in self.sequence(name):
            if not isinstance(one, list) or len(one) != 2:
                self.refuse(name, "pairs of first and last", one)
            found.append((self.count(name, one[0]), self.count(name, one[1])))
        return tuple(found)

    def monitors(self) -> tuple[dict[str, Any], ...]:
        return tuple(self._monitor(one) for one in self.sequence("monitors"))

    def _monitor(self, value: Any) -> dict[str, Any]:
        one = self.members("monitors", value)
        if "min_delta" in one:
            self.finite("monitors.min_delta", one["min_delta"])
        if "metric" in one:
            try:
                Monitor.from_dict(one)
            except ConfigurationError as error:
                self.refuse("monitors", f"what makes a monitor ({error})", one)
        return one

    def policy(self) -> dict[str, Any]:
        value = self.mapping("policy")
        if not isinstance(value.get("save", ""), str):
            self.refuse("policy.save", "a string", value["save"])
        if len(self.texts("policy.keep", value.get("keep", []))) > MAX_RULES:
            self.refuse("policy.keep", f"at most {MAX_RULES} rules", len(value["keep"]))
        return value

    def provenance(self) -> dict[str, Any]:
        value = self.mapping("provenance")
        self.texts("provenance.command", value.get("command", []))
        for name in ("git", "machine"):
            self.named_texts(f"provenance.{name}", value.get(name, {}))
        return value

    def past(self) -> dict[str, Any]:
        value = self.mapping("past")
        if "seen" in value:
            self._counters("past.seen", value["seen"])
        self.finite("past.elapsed", value.get("elapsed", 0.0))
        for name, best in self.members("past.best", value.get("best", {})).items():
            self.number(f"past.best.{name}", best)
        return value

    def content(self) -> Content:
        contents: tuple[Content, ...] = ("full", "weights")
        for one in contents:
            if self.document["content"] == one:
                return one
        return self.refuse("content", '"full" or "weights"', self.document["content"])

    def time(self, name: str) -> datetime:
        text = self.text(name)
        try:
            value = datetime.fromisoformat(text)
            return value.astimezone(UTC) if value.tzinfo else self.refuse(name, "a time with its offset from UTC", text)
        except ValueError:
            return self.refuse(name, "an ISO 8601 time", text)
        except OverflowError:
            return self.refuse(name, "a time in the years 1 to 9999 of UTC", text)

    def progress(self) -> Progress:
        return Progress(**self._counters("progress", self.document["progress"]))

    def _counters(self, name: str, value: Any) -> dict[str, int]:
        members = self.members(name, value)
        for counter in _COUNTERS:
            if counter not in members:
                self.refuse(f"{name}.{counter}", "the member", "nothing")
        return {counter: self.count(f"{name}.{counter}", members[counter]) for counter in _COUNTERS}

    def files(self) -> dict[str, FileInfo]:
        return {name: self._file(name, value) for name, value in self.mapping("files").items()}

    def _file(self, name: str, value: Any) -> FileInfo:
        if not plain_name(name):
            self.refuse("files", "plain file names (no separators, no leading dot)", name)
        if not isinstance(value, dict):
            self.refuse(f"files.{name}", "an object", value)
        digest = value.get("digest")
        if not isinstance(digest, str) or not _DIGEST_FORM.fullmatch(digest):
            self.refuse(f"files.{name}.digest", f'"{_DIGEST}" and 32 hex digits', digest)
        return FileInfo(self.count(f"files.{name}.size", value.get("size")), digest)
