"""Where snapshots live: the manifest, the commit protocol, the run lock, the journal, the trace."""

from __future__ import annotations

from ckpt_callbacks.store.attempts import LIMIT, Attempts
from ckpt_callbacks.store.inbox import Inbox, Message
from ckpt_callbacks.store.integrity import load_directory, read_manifest, senseless, unless_deleted, verify_directory
from ckpt_callbacks.store.journal import Journal
from ckpt_callbacks.store.local import LocalStore
from ckpt_callbacks.store.lock import Owner, RunLock, owner_of
from ckpt_callbacks.store.manifest import FileInfo, Manifest, unless_newer
from ckpt_callbacks.store.provenance import machine, note_without_secret, provenance, without_secret, without_secrets
from ckpt_callbacks.store.trace import Step, Trace, fingerprint

__all__ = [
    "LIMIT",
    "Attempts",
    "FileInfo",
    "Inbox",
    "Journal",
    "LocalStore",
    "Manifest",
    "Message",
    "Owner",
    "RunLock",
    "Step",
    "Trace",
    "fingerprint",
    "load_directory",
    "machine",
    "note_without_secret",
    "owner_of",
    "provenance",
    "read_manifest",
    "senseless",
    "unless_deleted",
    "unless_newer",
    "verify_directory",
    "without_secret",
    "without_secrets",
]
