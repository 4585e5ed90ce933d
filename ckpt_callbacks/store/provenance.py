"""Where a snapshot comes from: the command line and the git commit, without secrets, and the machine.

Only files are read, no program is started. A value is left out, shown as ``***``, when the name before it looks like
a secret's, when it is the user part of a URL, or when it begins as well-known tokens do. It is rather left out once
too often: what could be a secret is not worth the record.

Anyone who may write a request gives the text of a note, and ``re`` holds the interpreter while it looks: each pattern
takes time in proportion to the text, since it begins where a word begins and never looks again at what it has passed.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["machine", "note_without_secret", "provenance", "without_secret", "without_secrets"]

_HIDDEN = "***"
_MAX_ARGUMENTS, _MAX_LENGTH = 256, 500
MAX_NOTE = 2_000
"""The most characters of a note."""

_LONG_ENOUGH = 6  # a shorter value of a variable may be any word
_SECRET_NAME = re.compile(
    r"token(?!i[sz])|secret|passw|passphrase|pwd|credential|auth(?!or(?!i[sz]))|bearer|signature|cookie|(pass|key|keys|sig|dsn)$",
    re.IGNORECASE,
)
_SECRET_WORDS = frozenset(
    (
        *("pat", "pw", "pass", "pswd", "psk", "key", "keys", "pin", "otp"),
        *("jwt", "sas", "cred", "creds", "session", "webhook", "private", "login", "access"),
    )
)
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_NAMED_VALUE = re.compile(r"""(?<![\w.-])(?P<name>[\w.-]++)["']?\s*+[=:]\s*+["']?(?=\S)""")
_OPTION = re.compile(r"\A--[a-z][a-z_.-]*(=.*)?", re.DOTALL)
_SHORT_OPTION = re.compile(r"-[uUp]")
_FLAG = re.compile(r"\A-(?:[A-Za-z]|-[a-z].*)", re.DOTALL)
_NAMES_OPTION = re.compile(r"\A-[^=:\s]*+")
_BARE_NAME = re.compile(r"\A[A-Za-z_][\w.-]*+")
_ATTACHED = re.compile(r"\A(?P<option>-[uU](?=[^:]*+:)|-p(?=.)|(?P<name>--?[\w.-]++)=(?=[^:]*+:)).+", re.DOTALL)
_WHOLE_WORD = re.compile(r"\S++")
# A URL that became a path has one slash.
_URL = re.compile(r"(?<![A-Za-z0-9+.-])[A-Za-z0-9+.-]{2,}+:/{1,2}+(?=.)", re.DOTALL)
_REFERENCE = re.compile(r"best|latest|\d+(-[0-9a-f]{6})?")
_USER = re.compile(r"(?<![\w.+-])[\w.+-]++:(?!/)")
_HOST = re.compile(r"@(?=[\w.-])")
_SCHEME_OF_ACCESS = re.compile(r"\b(?P<how>bearer(?=\s++\S)|basic(?=\s++[A-Za-z0-9+/]{8}))\s++\S++", re.IGNORECASE)
_WEBHOOK = re.compile(r"(?P<where>\bhooks\.[\w.-]{1,253}+|/webhooks?)/\S++", re.IGNORECASE)  # no host is longer
_NAME_AND_VALUE = re.compile(r"\A(?P<name>[A-Za-z_][\w.-]*+)\s++\S++")
_PRIVATE_KEY = re.compile(r"-----BEGIN.*+", re.DOTALL)
_HEX = re.compile(r"(?<![\w/.-])[0-9a-fA-F]{32,}+(?![\w/.-])")  # an API key, or a digest; but not a part of a path
_KNOWN_TOKEN = re.compile(
    r"(?<![A-Za-z0-9])(?:(?:hf_|gh[opsru]_|github_pat_|gl[a-z]{2,6}-|sk-|[rsp]k_(?:live|test)_|xox[a-z]-|xapp-|AKIA|ASIA|"
    r"AIza|ya29\.|npm_|pypi-|dckr_pat_|shpat_|dapi|SG\.|whsec_|eyJ|GOCSPX-)[\w.-]{8,}+(?::\S++)?|"
    r"(?:bot)?\d{8,10}:[\w-]{35,}+)",
)


def provenance() -> dict[str, Any]:
    """What is known of this process: ``command`` (a list of arguments) and ``git`` (``commit`` and ``branch``)."""
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    facts: dict[str, Any] = {"command": list(_command(tuple(sys.orig_argv)))}
    git = _git(Path(script).parent if script else Path())
    return {**facts, "git": git} if git else facts


@cache
def machine() -> dict[str, str]:
    """What of this machine can change the bits of a sum: its processor, and how many cores this process may use."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    kind = models[0] if models else platform.processor()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"processor": f"{platform.machine()} {kind}".strip(), "cores": str(cores)}


def without_secrets(arguments: Sequence[str]) -> list[str]:
    """The arguments of a command line with every value that looks like a secret replaced by ``***``."""
    return list(_redacted(arguments))


def note_without_secret(note: str | None) -> str | None:
    """A note without what looks like a secret in it. Of a long one the beginning, without the word that the end would
    cut in two: it could be half of a secret that is known by its other half."""
    if note is not None and len(note) > MAX_NOTE:
        words = note[:MAX_NOTE].rsplit(maxsplit=1)
        note = " ".join((*words[:-1], "…"))
    return without_secret(note) if note else note


def without_secret(text: str) -> str:
    """A text, such as a note or a path in an error, with what looks like a secret in it replaced by ``***``."""
    return _redact(text)


@cache
def _command(arguments: tuple[str, ...]) -> tuple[str, ...]:
    shown = without_secrets(arguments[:_MAX_ARGUMENTS])
    return tuple(one if len(one) <= _MAX_LENGTH else one[:_MAX_LENGTH] + "…" for one in shown)


def _redacted(arguments: Sequence[str]) -> Iterator[str]:
    before, known = "", _in_environment()
    for argument in arguments:
        name, equals, value = argument.rpartition("=")
        if value in known:  # `train.py $MY_API_KEY`: the shell has put the value there
            yield f"{name}{equals}{_HIDDEN}"
        elif _follows(before, argument):
            yield _HIDDEN
            argument = ""  # a secret names no other
        else:
            yield _HEX.sub(_HIDDEN, _redact(_without_attached(argument)))
        before = argument


def _in_environment() -> set[str]:
    """The values of variables that are called like secrets; not directories, such as ``PWD`` has, nor short words."""
    named = {value for name, value in os.environ.items() if _is_secret(name)}
    return {value for value in named if len(value) >= _LONG_ENOUGH and not value.startswith(os.sep)}


def _follows(before: str, argument: str) -> bool:
    """Whether an argument is the value of a secret option that stands before it. It may begin with a dash itself."""
    if _SHORT_OPTION.fullmatch(before):  # curl -u user:password, but also python -u train.py
        return ":" in argument if before != "-p" else not argument.isdecimal()
    if _BARE_NAME.fullmatch(before):  # --set api_key VALUE; but no file, such as tokens.bin
        return not _FLAG.fullmatch(argument) and _is_secret(before.rpartition(".")[2])
    if not _NAMES_OPTION.fullmatch(before) or _OPTION.fullmatch(argument):
        return False
    return _is_secret(before) or ("user" in before.lower() and ":" in argument)


def _without_attached(argument: str) -> str:
    """``-uuser:password``, ``--user=user:password``, ``-ppassword``: an option with its value in one argument."""
    found = _ATTACHED.fullmatch(argument)
    if not found or (found["name"] and "user" not in found["name"]):
        return argument
    return found["option"] + _HIDDEN


def _is_secret(name: str) -> bool:
    words = {word.lower() for word in _WORD.findall(name)}
    return bool(_SECRET_NAME.search(name) or words & _SECRET_WORDS)


def _redact(argument: str) -> str:
    """One argument without the secrets inside it; all that follows a secret's name goes with it."""
    argument = _WHOLE_WORD.sub(_without_user, _PRIVATE_KEY.sub(_HIDDEN, argument))
    for match in _NAMED_VALUE.finditer(argument):
        if _is_secret(match["name"]):
            argument = argument[: match.end()] + _HIDDEN
            break
    if (both := _NAME_AND_VALUE.fullmatch(argument)) and _is_secret(both["name"]):
        return f"{both['name']} {_HIDDEN}"
    argument = _WEBHOOK.sub(rf"\g<where>/{_HIDDEN}", argument)
    return _KNOWN_TOKEN.sub(_HIDDEN, _SCHEME_OF_ACCESS.sub(rf"\g<how> {_HIDDEN}", argument))


def _without_user(found: re.Match[str]) -> str:
    """One word without the user and the password that stand before an ``@``; these may hold any sign but a space."""
    word = found[0]
    if "@" not in word:
        return word
    word = _without_user_of_url(word)
    user, hosts = _USER.search(word), list(_HOST.finditer(word))
    if not user or not hosts or user.end() >= hosts[-1].start():
        return word
    return f"{word[: user.start()]}{_HIDDEN}{word[hosts[-1].start() :]}"


def _without_user_of_url(word: str) -> str:
    """All before the last ``@`` goes - unless that begins ``@best`` of a reference."""
    before, _, rest = word.rpartition("@")
    url = _URL.search(before)
    if not url:
        return word
    server, slash, _ = before[url.end() :].partition("/")
    if slash and not re.search("[:@]", server) and _REFERENCE.fullmatch(rest):
        return word
    return f"{before[: url.end()]}{_HIDDEN}@{rest}"


@cache
def _git(directory: Path) -> dict[str, str]:
    """The commit that the repository around ``directory`` stands at; empty if there is none or it can't be read."""
    try:
        directory = directory.resolve()
        for folder in (directory, *directory.parents):
            if (folder / ".git").exists():
                return _head(folder / ".git")
    except (OSError, ValueError):  # no such directory any more, names that are no text, paths that are none
        return {}
    return {}


def _head(git: Path) -> dict[str, str]:
    if git.is_file():  # a worktree or a submodule: the file says where the real directory is
        git = git.parent / git.read_text().removeprefix("gitdir:").strip()
    head = (git / "HEAD").read_text().strip()
    if not head.startswith("ref:"):
        return _commit(head)
    ref = head.removeprefix("ref:").strip()
    common = git / "commondir"
    shared = git / common.read_text().strip() if common.is_file() else git
    commit = _loose(git, ref) or _loose(shared, ref) or _packed(shared, ref)
    return {**_commit(commit), "branch": ref.removeprefix("refs/heads/")} if commit else {}


def _loose(git: Path, ref: str) -> str:
    path = git / ref
    return path.read_text().strip() if path.is_file() else ""


def _packed(git: Path, ref: str) -> str:
    path = git / "packed-refs"
    lines = path.read_text().splitlines() if path.is_file() else []
    return next((line.split()[0] for line in lines if line.endswith(f" {ref}")), "")


def _commit(text: str) -> dict[str, str]:
    return {"commit": text} if re.fullmatch(r"[0-9a-f]{40,64}", text) else {}
