"""The journal of a run, `events.jsonl`: what was saved, kept, dropped and resumed, and why.

One JSON object a line, appended with a single write, so two writers never mix their lines. It is for people and plots:
nothing is decided by it, and losing it loses no snapshot.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ckpt_callbacks.errors import StoreError
from ckpt_callbacks.limits import reckoned
from ckpt_callbacks.messages import warn
from ckpt_callbacks.store.files import disk
from ckpt_callbacks.store.manifest import finite
from ckpt_callbacks.store.remedies import remedy

__all__ = ["Journal"]

MAX_BYTES = 64 << 20
"""How much of it is read: the end. That is some hundred thousand events."""

MAX_LINE = 1 << 20
"""The most bytes of a line: a longer one is no event."""

_TIMES, _AT_LEAST = 16, 1024


class Journal:
    """An append-only file of events.

    Args:
        path: the file; it is created with the first event.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._warned = False

    def append(self, event: str, **fields: Any) -> None:
        """Add one event with the present time. Values are JSON-like; numbers that aren't finite become strings.

        A journal that can't be written is worth a warning, once, never a failed save.
        """
        entry = {"time": datetime.now(UTC).isoformat(timespec="microseconds"), "event": event, **fields}
        line = json.dumps(finite(entry), allow_nan=False, default=str).encode() + b"\n"
        try:
            self._append(line)
        except OSError as error:
            if not self._warned:
                warn(
                    f"{self.path} can't be written ({error}); snapshots are saved all the same, without a journal. "
                    f"{remedy(error)}"
                )
            self._warned = True

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Give the events, oldest first; a line that a crash has torn, or that is none of ours, is left out.

        Raises:
            StoreError: it can't be read.
        """
        try:
            lines = io.BytesIO(disk.read_end(self.path, MAX_BYTES))
        except FileNotFoundError:
            return
        except OSError as error:
            raise StoreError(f"{self.path} can't be read: {error}. {remedy(error)}.") from error
        for line in lines:
            if len(line) > MAX_LINE or reckoned(line) > max(_TIMES * len(line), _AT_LEAST):
                continue  # ours take ten times their bytes in memory
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(entry, dict):
                yield entry

    def kept(self) -> dict[str, list[str]]:
        """Why each snapshot was kept when that was noted last: id -> reasons."""
        found = {}
        for entry in self:
            id, why = entry.get("id"), entry.get("why")
            if entry.get("event") == "kept" and isinstance(id, str) and isinstance(why, list):
                found[id] = [str(reason) for reason in why]
        return found

    def dropped(self) -> dict[str, str]:
        """Why each snapshot that is gone was dropped: id -> why, in the order in which they went."""
        found = {}
        for entry in self:
            id, why = entry.get("id"), entry.get("why")
            if entry.get("event") == "dropped" and isinstance(id, str):
                found[id] = str(why)
        return found

    def _append(self, line: bytes) -> None:
        descriptor = disk.open_append(self.path)
        try:
            if disk.read_last_byte(descriptor) not in (b"", b"\n"):
                line = b"\n" + line  # a crash tore the last line: don't let it spoil this one
            disk.write(descriptor, line)
        finally:
            disk.close(descriptor)
