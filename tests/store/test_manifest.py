"""The manifest: what goes in comes out, and what was changed or is not ours is refused with a sentence that helps."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckpt_callbacks.engine.moment import Progress
from ckpt_callbacks.errors import CorruptSnapshotError, StoreError, UnreachableError
from ckpt_callbacks.store.manifest import (
    FORMAT,
    MAX_COUNT,
    FileInfo,
    Manifest,
    digest_of,
    finite,
    package_version,
    plain_name,
)

counters = st.integers(0, 2**53 - 1)
text = st.text(max_size=20)
names = st.text("abcdefgh._-0123", min_size=1, max_size=20).filter(plain_name)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
json_objects = st.dictionaries(text, json_values, max_size=4)
manifests = st.builds(
    Manifest,
    id=names,
    sequence=counters,
    progress=st.builds(Progress, step=counters, epoch=counters, batch=counters, batches=counters),
    content=st.sampled_from(["full", "weights"]),
    created=st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)),
    files=st.dictionaries(names, st.builds(FileInfo, size=counters, digest=st.binary().map(digest_of)), max_size=4),
    metrics=st.dictionaries(text, st.floats(), max_size=4),
    reasons=st.lists(text, max_size=3).map(tuple),
    past=json_objects,
    parent=st.none() | names,
    elapsed=st.floats(0, 1e12),
    note=st.none() | text,
    finished=st.booleans(),
    framework=st.none() | text,
    versions=st.dictionaries(text, text, max_size=3),
    monitors=st.lists(json_objects, max_size=2).map(tuple),
    provenance=json_objects,
    extra=st.dictionaries(text.map("x_".__add__), json_values, max_size=3),
)
EXAMPLE = Manifest(
    id="000000010-abcdef",
    sequence=3,
    progress=Progress(step=10, epoch=1, batch=2, batches=12),
    content="full",
    created=datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC),
    files={"model.safetensors": FileInfo(120, digest_of(b"weights"))},
    metrics={"val_loss": 0.5},
    reasons=("on_best('val_loss')",),
    past={"best": {"val_loss:min": 0.5}},
    versions={"ckpt_callbacks": "0.1"},
)


def changed(**members: Any) -> bytes:
    """The example's file with other members (None: without it), sealed as if it had been written so."""
    document = {**json.loads(EXAMPLE.to_bytes()), **members}
    del document["digest"]
    body = json.dumps({name: value for name, value in document.items() if value is not ...}, indent=2)
    head = body.removesuffix("\n}") + ",\n"
    return f'{head}  "digest": "{digest_of(head.encode())}"\n}}\n'.encode()


@given(manifests)
def test_what_is_written_is_read(manifest: Manifest) -> None:
    """Every manifest survives its file, non-finite metrics and members of a later version included."""
    found = Manifest.from_bytes(manifest.to_bytes())
    assert found.to_bytes() == manifest.to_bytes()
    assert {name: repr(value) for name, value in found.metrics.items()} == {
        name: repr(value) for name, value in manifest.metrics.items()
    }
    assert replace(found, metrics={}) == replace(manifest, metrics={})


def test_the_file_is_ascii_json_without_constants_that_json_lacks() -> None:
    """Any JSON parser reads it: non-finite numbers are strings, odd characters are escaped."""
    manifest = replace(EXAMPLE, metrics={"a": math.nan, "b": math.inf, "c": -math.inf}, note="café \udc80")
    document = json.loads(manifest.to_bytes().decode("ascii"), parse_constant=pytest.fail)
    assert document["metrics"] == {"a": "nan", "b": "inf", "c": "-inf"}
    assert Manifest.from_bytes(manifest.to_bytes()).note == "café \udc80"


@given(st.data())
def test_a_changed_byte_is_seen(data: st.DataObject) -> None:
    """Whichever byte changes, the manifest is refused, be it white space or the last line feed."""
    raw = bytearray(EXAMPLE.to_bytes())
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(StoreError):
        Manifest.from_bytes(bytes(raw))


@pytest.mark.parametrize("end", [b'"\n}', b'"\n}\n\n', b'"\n}\n ', b'"\n}\r\n', b'"}\n', b'" \n}\n'])
def test_the_digest_is_followed_by_one_end_only(end: bytes) -> None:
    """What stands after it is not covered by it, so it is compared."""
    raw = EXAMPLE.to_bytes()
    with pytest.raises(CorruptSnapshotError, match="was changed after it was written: expected that it ends with"):
        Manifest.from_bytes(raw.removesuffix(b'"\n}\n') + end)


@given(st.integers(0, len(EXAMPLE.to_bytes()) - 1))
def test_a_torn_manifest_is_refused(length: int) -> None:
    """Half a manifest is no manifest."""
    with pytest.raises(CorruptSnapshotError, match=r"manifest\.json"):
        Manifest.from_bytes(EXAMPLE.to_bytes()[:length])


@pytest.mark.parametrize(
    "name", ["format", "id", "sequence", "progress", "metrics", "reasons", "past", "content", "created", "files"]
)
def test_a_missing_required_member_is_named(name: str) -> None:
    """What resume can't do without must be there, and the message says which member isn't."""
    with pytest.raises(CorruptSnapshotError, match=rf"'{name}': expected the member, found nothing"):
        Manifest.from_bytes(changed(**{name: ...}))


@pytest.mark.parametrize(
    "name", ["parent", "elapsed", "note", "finished", "framework", "versions", "monitors", "provenance"]
)
def test_a_missing_optional_member_has_a_default(name: str) -> None:
    """What is only good to know may be absent."""
    found = Manifest.from_bytes(changed(**{name: ...}))
    assert getattr(found, name) == Manifest.__dataclass_fields__[name].default or not getattr(found, name)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"id": "../elsewhere"}, "'id': expected a plain name"),
        ({"sequence": -1}, "'sequence': expected a whole number"),
        ({"sequence": True}, "'sequence': expected a whole number"),
        ({"sequence": 1.5}, "'sequence': expected a whole number"),
        ({"progress": {"step": 1, "epoch": 0, "batch": 0}}, "'progress.batches': expected the member"),
        ({"progress": {"step": "1", "epoch": 0, "batch": 0, "batches": 0}}, "'progress.step': expected a whole"),
        ({"metrics": {"loss": "low"}}, "'metrics.loss': expected a number"),
        ({"metrics": {"loss": 10**400}}, "'metrics.loss': expected a number"),
        ({"metrics": []}, "'metrics': expected an object"),
        ({"reasons": [1]}, "'reasons': expected a list of strings"),
        ({"content": "half"}, "'content': expected"),
        ({"created": "yesterday"}, "'created': expected an ISO 8601 time"),
        ({"created": "2026-01-02T03:04:05"}, "'created': expected a time with its offset"),
        ({"files": {"../../etc/passwd": {}}}, "'files': expected plain file names"),
        ({"files": {"a": {"size": 1, "digest": "md5:00"}}}, "'files.a.digest': expected"),
        ({"files": {"a": {"size": -1, "digest": digest_of(b"")}}}, "'files.a.size': expected"),
        ({"note": 3}, "'note': expected a string"),
        ({"created": "9999-12-31T23:59:59-12:00"}, "'created': expected a time in the years 1 to 9999"),
        ({"created": "0001-01-01T00:00:00+12:00"}, "'created': expected a time in the years 1 to 9999"),
        ({"sequence": 2**53}, "'sequence': expected a whole number .* at most 9007199254740991"),
        ({"progress": {"step": 2**53, "epoch": 0, "batch": 0, "batches": 0}}, "'progress.step': expected a whole"),
        ({"elapsed": "inf"}, "'elapsed': expected a finite number"),
        ({"finished": "yes"}, "'finished': expected true or false"),
        ({"versions": {"torch": ["2"]}}, "'versions.torch': expected a string"),
        ({"provenance": {"machine": [1]}}, "'provenance.machine': expected an object"),
        ({"provenance": {"machine": {"cores": 2}}}, "'provenance.machine.cores': expected a string"),
        ({"provenance": {"git": 5}}, "'provenance.git': expected an object"),
        ({"provenance": {"command": [1]}}, "'provenance.command': expected a list of strings"),
        ({"policy": {"save": 5}}, "'policy.save': expected a string"),
        ({"policy": {"keep": "keep_all()"}}, "'policy.keep': expected a list"),
        ({"policy": {"keep": ["keep_all()"] * 201}}, "'policy.keep': expected at most 200 rules, found 201"),
        ({"past": {"seen": 7}}, "'past.seen': expected an object"),
        ({"past": {"seen": {"step": 1}}}, "'past.seen.epoch': expected the member"),
        ({"past": {"elapsed": "nan"}}, "'past.elapsed': expected a finite number"),
        ({"past": {"best": {"loss:min": "low"}}}, "'past.best.loss:min': expected a number"),
        ({"monitors": [5]}, "'monitors': expected an object"),
        ({"monitors": [{"metric": 5}]}, "'monitors': expected what makes a monitor"),
        ({"monitors": [{"metric": "loss", "mode": "sideways"}]}, "'monitors': expected what makes a monitor"),
        ({"monitors": [{"metric": "loss", "min_delta": 10**400}]}, "'monitors.min_delta': expected a number"),
    ],
)
def test_a_member_of_another_kind_is_named(members: dict[str, Any], message: str) -> None:
    """The message says which member, what was expected and what was found."""
    with pytest.raises(CorruptSnapshotError, match=message):
        Manifest.from_bytes(changed(**members))


def test_a_newer_format_is_refused_with_the_version_that_is_needed() -> None:
    """An old reader doesn't guess; it says what to install."""
    with pytest.raises(StoreError, match=rf"format {FORMAT + 1}.*ckpt_callbacks 9\.1 wrote it"):
        Manifest.from_bytes(changed(format=FORMAT + 1, files=..., versions=NEWER))


NEWER = {"ckpt_callbacks": "9.1"}


@pytest.mark.parametrize(
    "members", [{"content": "sharded"}, {"progress": {"samples": 5}}, {"files": {"a": {"size": 1, "digest": "md5"}}}]
)
def test_what_a_later_version_wrote_in_its_own_way_is_refused(members: dict[str, Any]) -> None:
    """It is whole, and that version can read it. Only if each byte is as it was written, and by a later version."""
    with pytest.raises(UnreachableError, match=r"ckpt_callbacks 9\.1 wrote it, and this is .*: install that"):
        Manifest.from_bytes(changed(**members, versions=NEWER))
    damaged = changed(**members, versions=NEWER).replace(b"000000010-abcdef", b"000000010-abcdeg")
    with pytest.raises(CorruptSnapshotError):
        Manifest.from_bytes(damaged)
    for versions in ({"ckpt_callbacks": package_version()}, {"ckpt_callbacks": "0.0.9"}, {"ckpt_callbacks": "?"}, {}):
        with pytest.raises(CorruptSnapshotError):
            Manifest.from_bytes(changed(**members, versions=versions))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "not readable JSON"),
        (b"\xff", "not readable JSON"),
        (b"[]", "must hold a JSON object"),
        (b'{"format": 1, "format": 1}', "two members are called 'format'"),
        (b'{"format": NaN}', "NaN is not JSON"),
        (b'{"format": 1, "past": ' + b"[" * 100_000, "not readable JSON"),
        (b'{"format": 1, "past": ' + b"[" * 100 + b"]" * 100 + b"}", "nested more than"),
        (b'{"format": 1' + b"1" * 5000 + b"}", "not readable JSON"),
        (b" " * (17 << 20), "17,825,792 bytes: expected at most 16,777,216"),
        (b'{"zz": [' + b"[]," * 400_000 + b"0]}", r"take some .* bytes of memory: expected at most 33,554,432"),
    ],
)
def test_hostile_json_is_refused(raw: bytes, message: str) -> None:
    """Depth, size, duplicate names and odd numbers end in the same kind of error, never in a crash."""
    with pytest.raises(CorruptSnapshotError, match=message):
        Manifest.from_bytes(raw)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "a/b", "/a", "a\\b", "C:a", ".hidden", "manifest.json", "a\0", "a\n", "x" * 201, "a*"],
)
def test_a_name_that_leads_elsewhere_is_not_plain(name: str) -> None:
    """Files of a snapshot lie in its directory, on every file system."""
    assert not plain_name(name)


def test_no_number_that_readers_refuse_is_given_to_a_commit() -> None:
    """One snapshot with the highest sequence must not make all later ones unreadable."""
    assert EXAMPLE.committed("a", MAX_COUNT, None, {}).sequence == MAX_COUNT
    with pytest.raises(StoreError, match=r"has the sequence 9007199254740991.*move that one out"):
        EXAMPLE.committed("a", MAX_COUNT + 1, None, {})


def test_any_time_zone_is_read_as_utc() -> None:
    """The same instant, whoever wrote it."""
    there = EXAMPLE.created.astimezone(timezone(timedelta(hours=5, minutes=30))).isoformat()
    assert Manifest.from_bytes(changed(created=there)).created == EXAMPLE.created


def test_the_record_is_what_the_rules_need() -> None:
    """Sizes add up, time is in seconds, and the pin comes from outside the manifest."""
    record = EXAMPLE.record(pinned=True)
    assert (record.id, record.sequence, record.size, record.pinned) == (EXAMPLE.id, 3, 120, True)
    assert record.created == EXAMPLE.created.timestamp()
    assert not EXAMPLE.record().pinned


def test_a_draft_knows_who_wrote_it() -> None:
    """Python's and this package's versions are there without asking."""
    assert {"python", "ckpt_callbacks", "torch"} <= Manifest.draft(
        progress=Progress(), versions={"torch": "2.5"}
    ).versions.keys()


def test_finite_reaches_every_depth() -> None:
    """Non-finite numbers become strings wherever they are; all else stays."""
    assert finite({"a": [math.nan, (1.5, {"b": -math.inf})], "c": "x"}) == {
        "a": ["nan", [1.5, {"b": "-inf"}]],
        "c": "x",
    }
