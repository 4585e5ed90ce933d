"""Links: they follow, or there are none; what lies in their places is set aside."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ckpt_callbacks.store import LocalStore, Manifest
from ckpt_callbacks.store.files import disk

Draft = Callable[..., Manifest]
Files = Callable[..., dict[str, list[bytes]]]


def test_links_are_relative_and_replaced(store: LocalStore, draft: Draft, files: Files) -> None:
    """A moved run keeps its links."""
    first, second = (store.commit(draft(step), files()) for step in (10, 20))
    for manifest in (first, second, second):
        store.link("latest", manifest.id)
    assert os.readlink(store.root / "latest") == f"snapshots/{second.id}"
    moved = store.root.rename(store.root.parent / "moved")
    assert (moved / "latest" / "model.safetensors").is_file()
    assert [manifest.id for manifest in LocalStore(moved).manifests()] == [first.id, second.id]


def test_links_that_can_not_be_made_are_done_without(
    store: LocalStore, draft: Draft, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are caches: a file system without links is no error, and what lies in their place stays there."""

    def refuse(target: str, link: Path) -> None:
        raise PermissionError("no links here")

    manifest = store.commit(draft(), files())
    (store.root / "best").mkdir()
    monkeypatch.setattr(disk, "symlink", refuse)
    assert not store.link("best", manifest.id)
    assert not store.link("latest", manifest.id)
    assert {entry.name for entry in store.root.iterdir()} == {"best", "pins", "run.json", "snapshots"}


def test_what_lies_in_the_place_of_a_link_is_set_aside(
    store: LocalStore, draft: Draft, files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    """A copy that follows links makes directories of them: nothing of it is deleted, and it is said once."""
    first, second = (store.commit(draft(step), files()) for step in (10, 20))
    shutil.copytree(store.path(first.id), store.root / "latest")
    (store.root / "best").write_text("mine")
    assert store.displaced() == {"best": "a file", "latest": "a directory"}
    assert store.link("latest", second.id)
    assert store.link("best", second.id)
    assert not store.link("best", second.id)
    assert (store.root / "latest").resolve() == (store.root / "best").resolve() == store.path(second.id)
    assert (store.root / "damaged" / "best").read_text() == "mine"
    assert {path.name for path in (store.root / "damaged" / "latest").iterdir()} >= {"manifest.json", "state.json"}
    assert [record.getMessage().count("is no link any more") for record in caplog.records] == [1, 1]
    assert store.displaced() == {}
    assert store.aside() == []  # none of it is a snapshot to bring back
    (store.root / "latest").unlink()
    (store.root / "latest").mkdir()
    assert store.link("latest", second.id)
    assert (store.root / "damaged" / "latest+2").is_dir()


def test_a_link_whose_place_is_taken_for_good_is_said_once(
    store: LocalStore, draft: Draft, files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    """It is not worth an error, and silence would let it grow stale unseen."""
    manifest = store.commit(draft(), files())
    (store.root / "latest").mkdir()
    (store.root / "damaged").write_text("no directory")
    for _ in range(2):
        assert not store.link("latest", manifest.id)
    assert caplog.text.count("can't be set aside") == 1
    assert not list(store.root.glob(".*.partial"))
