"""Identity: which run a directory is, as its ``run.json`` says."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import xxhash

from ckpt_callbacks.errors import CorruptSnapshotError, StoreError
from ckpt_callbacks.store.files import disk
from ckpt_callbacks.store.integrity import twice
from ckpt_callbacks.store.remedies import remedy
from ckpt_callbacks.store.writing import DurableFiles

__all__ = ["NAME", "Identity"]

NAME = "run.json"
FORMAT = 1
MAX_BYTES = 1 << 20
_OLDER = {"format", "run_id", "created"}
"""The members of those that were written before there was a digest."""


class Identity:
    """The file that says so. It can be derived from the run's snapshots, should it be damaged.

    Args:
        root: the run's directory.
        files: how it is written.
    """

    def __init__(self, root: Path, files: DurableFiles) -> None:
        self.path, self._files = root / NAME, files

    def read(self) -> dict[str, Any]:
        """What it says; empty if it is absent.

        Raises:
            CorruptSnapshotError: its bytes are not those that were written.
            StoreError: it can't be read now, or is of a newer format.
        """
        try:
            raw = twice(lambda: disk.read(self.path, MAX_BYTES))
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise StoreError(f"{self.path} can't be read: {error}. {remedy(error)}.") from error
        try:
            facts = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise self._damaged(str(error)) from error
        if not isinstance(facts, dict) or facts.get("digest", _digest_of(facts)) != _digest_of(facts):
            raise self._damaged("its digest is not that of what it says")
        self._check_format(facts.get("format"))
        if "digest" not in facts and facts.keys() != _OLDER:
            raise self._damaged(f"without a digest it has exactly the members {', '.join(sorted(_OLDER))}")
        if not (raw == _text(facts) if "digest" in facts else raw.endswith(b"}\n")):
            raise self._damaged("its text is not as it was written")
        return facts

    def _check_format(self, found: object) -> None:
        if type(found) is not int or found < FORMAT:
            raise self._damaged(f"its format is {FORMAT} at least, found {found!r}")
        if found > FORMAT:
            raise StoreError(
                f"{self.path}: this version of ckpt_callbacks reads runs of format {FORMAT}, found {found!r}. "
                "Install a newer ckpt_callbacks."
            )

    def write(self, run_id: str | None) -> None:
        """Write a new one.

        Args:
            run_id: of the run, if that is known; else it gets one.
        """
        created = datetime.now(UTC).isoformat(timespec="microseconds")
        facts = {"format": FORMAT, "run_id": run_id or uuid.uuid4().hex, "created": created}
        facts |= {"digest": _digest_of(facts)}
        self._files.write_small(self.path, _text(facts))

    def _damaged(self, why: str) -> CorruptSnapshotError:
        return CorruptSnapshotError(
            f"{self.path} is damaged: {why}. It is written anew when the run trains again, or by `ckpt repair`."
        )


def _text(facts: Mapping[str, Any]) -> bytes:
    """The file, to the byte: spaces and line ends are none that a digest of members would see."""
    return json.dumps(facts, indent=2).encode() + b"\n"


def _digest_of(facts: Mapping[str, Any]) -> str:
    """The digest of all other members, as compact JSON with sorted keys."""
    rest = {key: value for key, value in facts.items() if key != "digest"}
    return "xxh3_128:" + xxhash.xxh3_128_hexdigest(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode())
