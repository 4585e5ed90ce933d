"""Provenance: enough to find the code and the command again, nothing that must stay secret."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ckpt_callbacks.store import note_without_secret, provenance, without_secret, without_secrets
from ckpt_callbacks.store.provenance import MAX_NOTE, _git


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["train.py", "--lr", "0.1"], ["train.py", "--lr", "0.1"]),
        (["--token", "abc", "--lr", "0.1"], ["--token", "***", "--lr", "0.1"]),
        (["--hf_token=abc"], ["--hf_token=***"]),
        (["--wandbApiKey=abc"], ["--wandbApiKey=***"]),
        (["--apikey", "abc"], ["--apikey", "***"]),
        (["--db-password", "a b"], ["--db-password", "***"]),
        (["--use-auth-token", "--lr", "1"], ["--use-auth-token", "--lr", "1"]),
        (["logger.api_key=abc"], ["logger.api_key=***"]),
        (["AWS_SECRET_ACCESS_KEY=abc"], ["AWS_SECRET_ACCESS_KEY=***"]),
        (['{"token": "abc", "x": 1}'], ['{"token": "***']),
        (["-H", "Authorization: Bearer abc"], ["-H", "Authorization: ***"]),
        (["--db=postgres://me:pw@host/db"], ["--db=postgres://***@host/db"]),
        (["https://host/data?sig=abc&x=1"], ["https://host/data?sig=***"]),
        (["push", "hf_abcdefghijkl"], ["push", "***"]),
        (
            ["--tokenizer=gpt2", "--author", "me", "s3://bucket/x"],
            ["--tokenizer=gpt2", "--author", "me", "s3://bucket/x"],
        ),
        (["--data", "C:/data", "a=b"], ["--data", "C:/data", "a=b"]),
        (["--token", "-abc", "--lr", "1"], ["--token", "***", "--lr", "1"]),
        (["--token", "--aB3", "x"], ["--token", "***", "x"]),
        (["--pat=abc"], ["--pat=***"]),
        (["--githubPat", "abc"], ["--githubPat", "***"]),
        (["--db.pw", "abc"], ["--db.pw", "***"]),
        (["db.pw=/abc"], ["db.pw=***"]),
        (["--pattern", "x", "--compat=1", "--path", "a"], ["--pattern", "x", "--compat=1", "--path", "a"]),
        (["-u", "me:abc"], ["-u", "***"]),
        (["-ume:abc", "-pabc", "-p", "abc"], ["-u***", "-p***", "-p", "***"]),
        (["--user=me:abc", "--proxy-user", "me:abc"], ["--user=***", "--proxy-user", "***"]),
        (["python", "-u", "train.py", "-p", "80"], ["python", "-u", "train.py", "-p", "80"]),
        (["https://me:p/a@b/c@host/data"], ["https://***@host/data"]),
        (["https://a/bc@host/data"], ["https://***@host/data"]),
        (["s3://bucket/run@best", "s3://me:pw@bucket/run"], ["s3://bucket/run@best", "s3://***@bucket/run"]),
        (["me:p/w@host:22/x"], ["***@host:22/x"]),
        (["curl", "Bearer abc"], ["curl", "Bearer ***"]),
        (["login", "0123456789abcdef" * 2 + "01234567"], ["login", "***"]),
        (["-----BEGIN RSA PRIVATE KEY-----\nabc"], ["***"]),
        (["AIzaSyA1234567890abcdefgh"], ["***"]),
        (["npm_abcdefghijkl"], ["***"]),
        (["sk_live_abcdefghijkl"], ["***"]),
        (["ghp_abcdefghijkl"], ["***"]),
        (["xoxb-abcdefghijkl"], ["***"]),
        (["AKIAABCDEFGHIJKL"], ["***"]),
        (["glpat-abcdefghijkl"], ["***"]),
        (["https://hooks.slack.com/services/T0/B0/abc"], ["https://hooks.slack.com/***"]),
        (["https://discord.com/api/webhooks/1/abc"], ["https://discord.com/api/webhooks/***"]),
        (["--wandb=" + "0123456789abcdef" * 2, "w=" + "0123456789abcdef" * 2], ["--wandb=***", "w=***"]),
        (["/hub/" + "0123456789abcdef" * 2 + "/w"], ["/hub/" + "0123456789abcdef" * 2 + "/w"]),
        (["--opts", "api_key", "abc", "lr", "3"], ["--opts", "api_key", "***", "lr", "3"]),
        (
            ["--set", "db.password", "-abc", "--env", "API_KEY", "x"],
            ["--set", "db.password", "***", "--env", "API_KEY", "***"],
        ),
        (["TOKEN", "key_abc", "train"], ["TOKEN", "***", "train"]),
        (
            ["tokens.bin", "out", "secrets/train.py", "--key", "-v"],
            ["tokens.bin", "out", "secrets/train.py", "--key", "***"],
        ),
        (["TOKEN", "-v", "key", "--lr", "3"], ["TOKEN", "-v", "key", "--lr", "3"]),
        (["--psk", "abc", "GOCSPX-abcdefghijkl"], ["--psk", "***", "***"]),
        (["AKIAABCDEFGHIJKL:abc/+d", "AKIAABCDEFGHIJKL: old"], ["***", "***: old"]),
        (["123456789:" + "aB-_3" * 7, "bot123456789:" + "aB-_3" * 7 + "/send"], ["***", "***/send"]),
        (["me:@b@host", "a:1,me:x@host@", "https://@host"], ["***@host", "***@host@", "https://@host"]),
        (["api-key abc", "two words", "--login", "me/abc"], ["api-key ***", "two words", "--login", "***"]),
    ],
)
def test_values_of_secrets_are_left_out(arguments: list[str], shown: list[str]) -> None:
    """By the name before them, by their place in a URL, or by how they begin; ordinary arguments stay."""
    assert without_secrets(arguments) == shown


def test_what_the_shell_took_from_the_environment_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """`train.py $MY_API_KEY --key=$MY_API_KEY`; not what stands in variables that only sound like it."""
    for name, value in (("MY_API_KEY", "Sesame1"), ("SHORT_PW", "x"), ("PWD", "/data/run"), ("SEED", "Sesame2")):
        monkeypatch.setenv(name, value)
    arguments = ["train.py", "Sesame1", "where=Sesame1", "x", "/data/run", "Sesame2"]
    assert without_secrets(arguments) == ["train.py", "***", "where=***", "x", "/data/run", "Sesame2"]


_SEEDS = (
    *("a", "A", "Aa", "1", "-", "=", ":", "@", "/", '"', ".", " ", "\n", "é", "a.", "a-", "1:", "a:", "a: ", "a ="),
    *("a@", "@.", "x:y@", "u:/", "ab:/", "ab:/a", "ab:/@", "--user", "--user=", "user", "-u", "-p", "key ", "key="),
    *('key"', "token: ", "bearer ", "basic ", "basic abcdefg", "hooks.", "hooks./", "/webhook", "-----BEGIN", "sk-"),
    *("gh", "glab", "AKIA", "eyJ.", "0e", "0123456789:"),
)


@pytest.mark.parametrize("seed", _SEEDS)
def test_looking_for_secrets_takes_time_in_proportion_to_the_text(seed: str) -> None:
    """Every pattern, with what makes it begin again and again: while ``re`` looks, training stands still."""
    patterns = [one for one in vars(sys.modules[without_secret.__module__]).values() if isinstance(one, re.Pattern)]
    assert len(patterns) > 10
    for before, after in (("", ""), ("--", ""), ("--user", " "), ("", "@"), ("hooks.", " ")):
        text = before + seed * (50_000 // len(seed)) + after
        began = time.process_time()
        for pattern in patterns:
            for _ in pattern.finditer(text):
                pass
        without_secret(text)
        without_secrets([text, text, f"{text}=x"])
        assert time.process_time() - began < 2  # 0.05; the square of it took ten seconds and more


def test_a_long_note_is_cut_where_no_secret_is_cut_in_two() -> None:
    """The half of a password whose ``@host`` is cut off would not be known as one."""
    assert note_without_secret(None) is None
    assert note_without_secret("") == ""
    assert note_without_secret("before the merge, token=abc") == "before the merge, token=***"
    words = "word " * (MAX_NOTE // 5 - 2)
    cut = note_without_secret(f"{words}https://me:{'S3cret' * 50}@host")
    assert cut == f"{words}…"
    assert note_without_secret("x" * 2 * MAX_NOTE) == "…"


def test_this_process_tells_its_command() -> None:
    """The command line is a list of arguments, ready for JSON."""
    facts = provenance()
    assert facts["command"][0] == without_secrets(sys.orig_argv)[0]
    assert json.loads(json.dumps(facts)) == facts


@pytest.mark.skipif(shutil.which("git") is None, reason="git makes the repository that is read here")
@pytest.mark.parametrize("packed", [False, True])
def test_the_commit_is_found_without_running_git(tmp_path: Path, packed: bool) -> None:
    """From a folder inside the repository, with loose and with packed references, and in a worktree."""

    def git(*arguments: str) -> str:
        settings = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
        done = subprocess.run(["git", *settings, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    git("init", "--quiet", "--initial-branch", "main")
    git("commit", "--quiet", "--allow-empty", "--message", "first")
    if packed:
        git("pack-refs", "--all")
    git("worktree", "add", "--quiet", "-b", "other", str(tmp_path / "tree"))
    (tmp_path / "inner").mkdir()
    commit = git("rev-parse", "HEAD")
    assert _git(tmp_path / "inner") == {"commit": commit, "branch": "main"}
    assert _git(tmp_path / "tree") == {"commit": commit, "branch": "other"}
    git("checkout", "--quiet", "--detach")
    _git.cache_clear()
    assert _git(tmp_path / "inner") == {"commit": commit}


def test_a_repository_that_cannot_be_read_is_nothing_to_tell(tmp_path: Path) -> None:
    """Names in it need not be UTF-8."""
    for number, (name, content) in enumerate(
        [("HEAD", b"ref: refs/heads/gr\xf6n"), ("HEAD", b"ref: a\x00b"), ("packed-refs", b"\xf6\n")]
    ):
        git = tmp_path / str(number) / ".git"
        git.mkdir(parents=True)
        (git / "HEAD").write_bytes(b"ref: refs/heads/main")
        (git / name).write_bytes(content)
        assert _git(git.parent) == {}


def test_a_directory_that_is_gone_is_nothing_to_tell(tmp_path: Path) -> None:
    """A notebook's, that somebody moved."""
    (tmp_path / "gone").mkdir()
    code = "import os; os.rmdir(os.getcwd()); from ckpt_callbacks.store import provenance; print(provenance())"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "gone", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "'git'" not in done.stdout


def test_no_repository_is_nothing_to_tell(tmp_path: Path) -> None:
    """A broken one neither: provenance never stops a save."""
    assert _git(tmp_path) == {}
    (tmp_path / "odd" / ".git").mkdir(parents=True)
    assert _git(tmp_path / "odd") == {}
