"""Remedies: what a person can do about a refusal of the file system; and which refusals say nothing of the bytes."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from ckpt_callbacks.door import IrregularError
from ckpt_callbacks.errors import StoreError

__all__ = ["is_damage", "remedy", "told"]

_SPACE = "Check free space (df), and free some or keep fewer snapshots"
_ACCESS = "Check owner and permissions of the directory (ls -ld), and which user runs this"
_AWAY = "Check that the file system is mounted and its server answers; then start again"
_BROKEN = "The disk itself fails (dmesg tells more): copy the run to another one"

_REMEDIES = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: "Your quota is used up (quota -s): free some space or keep fewer snapshots",
    errno.EFBIG: "A file may not become so large here: raise the limit (ulimit -f), or use another file system",
    errno.EACCES: _ACCESS,
    errno.EPERM: _ACCESS,
    errno.EROFS: "The file system is read-only (mount): mount it for writing, or choose another directory",
    errno.ENOTDIR: "A file lies where a directory is expected: move it out of the way",
    errno.EMFILE: "This process has too many files open: raise the limit (ulimit -n), or look who keeps them open",
    errno.ENFILE: "The whole system has too many files open: close programs, or raise fs.file-max",
    errno.ENOMEM: "Memory has run out: give the job more of it",
    errno.ESTALE: _AWAY,
    errno.ETIMEDOUT: _AWAY,
    errno.ENOTCONN: _AWAY,
    errno.EHOSTDOWN: _AWAY,
    errno.EIO: _BROKEN,
}
_FOREIGN = "Move it out of the way: inside of a run are files and directories of its own, no links, pipes or devices"
_USUAL = "Check free space (df), permissions and the disk (dmesg)"

_DAMAGE = {errno.EIO, errno.EBADMSG, errno.EISDIR, errno.ELOOP, *filter(None, [getattr(errno, "EUCLEAN", None)])}


def remedy(error: OSError) -> str:
    """What to do about it: one sentence, without its full stop."""
    if isinstance(error, IrregularError):
        return _FOREIGN
    return _REMEDIES.get(error.errno or 0, _USUAL)


def is_damage(error: OSError) -> bool:
    """Whether bytes that can't be read are lost; else they may be good, and can be read once the cause is gone."""
    return isinstance(error, IrregularError) or error.errno in _DAMAGE


@contextlib.contextmanager
def told(what: str) -> Iterator[None]:
    """Let what the disk refuses be an error of ours, that says what could not be done and what helps."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"{what}: {error}. {remedy(error)}.") from error
