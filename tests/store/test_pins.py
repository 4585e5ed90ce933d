"""Pins: what is pinned stays, whoever pins it and whenever."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable
from typing import Any

import pytest

from ckpt_callbacks.errors import (
    SnapshotNotFoundError,
    StoreError,
)
from ckpt_callbacks.store import LocalStore, Manifest
from ckpt_callbacks.store.files import disk

Draft = Callable[..., Manifest]
Files = Callable[..., dict[str, list[bytes]]]


def of_weights(name: str) -> bool:
    """Whether a file stays."""
    return not name.startswith("state.s")


def test_a_pin_outlives_the_rules(store: LocalStore, draft: Draft, files: Files) -> None:
    """A pinned snapshot can't be deleted; its note is kept; anyone may take the pin away."""
    manifest = store.commit(draft(), files())
    store.pin(manifest.id, "for the paper")
    assert LocalStore(store.root).pins() == {manifest.id: "for the paper"}
    assert [record.pinned for record in store.records()] == [True]
    assert not store.delete(manifest.id)
    store.pin(manifest.id)
    assert store.pins() == {manifest.id: None}
    store.unpin(manifest.id)
    store.unpin(manifest.id)
    assert store.delete(manifest.id)


def test_a_pin_that_can_not_be_looked_for_may_be_there(
    store: LocalStore, draft: Draft, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that doesn't answer is no leave to delete: before the deed, and when it is looked for once more."""
    id = store.commit(draft(), files()).id
    real, looks = os.lstat, itertools.count(1)

    def refuses(which: int) -> None:
        def lstat(path: Any) -> os.stat_result:
            if "pins" in str(path) and next(looks) == which:
                raise OSError(errno.EIO, "Input/output error")
            return real(path)

        monkeypatch.setattr(os, "lstat", lstat)

    refuses(1)
    with pytest.raises(StoreError, match=r"can't be removed.*Input/output error.*copy the run"):
        store.delete(id)
    looks = itertools.count(1)
    refuses(2)
    assert not store.delete(id)
    assert store.verify(id) == []


def test_a_pin_is_never_demoted(store: LocalStore, draft: Draft, files: Files) -> None:
    """Whoever pinned it wants all of it."""
    manifest = store.commit(draft(), files())
    store.pin(manifest.id)
    assert not store.demote(manifest.id, of_weights)
    assert store.manifests() == [manifest]


def test_a_pin_that_comes_while_it_is_demoted_wins(
    store: LocalStore, draft: Draft, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look for a pin and the new manifest there is time: the old manifest is put back."""
    manifest = store.commit(draft(), files())
    rename = disk.rename

    def pinned_now(source: Any, target: Any) -> None:
        (store.root / "pins" / manifest.id).touch()
        rename(source, target)

    monkeypatch.setattr(disk, "rename", pinned_now)
    assert not store.demote(manifest.id, of_weights)
    assert store.manifests() == [manifest]
    assert store.verify(manifest.id) == []
    assert not (store.path(manifest.id) / ".demoted").exists()


def test_only_a_snapshot_can_be_pinned(store: LocalStore) -> None:
    """A typo is an error, and leaves no pin; a path is no id."""
    with pytest.raises(SnapshotNotFoundError, match="no snapshot '000000001-abcdef' to pin"):
        store.pin("000000001-abcdef")
    assert store.pins() == {}
    with pytest.raises(SnapshotNotFoundError, match="not the id of a snapshot"):
        store.pin("../../elsewhere")
