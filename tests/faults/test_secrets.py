"""Secrets of the environment, of the command line and of URLs are in no file of a run and in no log; and files are for
those whom the umask lets in."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from ckpt_callbacks import ConfigurationError, Run
from ckpt_callbacks.checkpointer import BaseCheckpointer
from tests.faults.harness import FrozenLoop, checkpointer, undisturbed

SECRETS = {
    "environment": "Env1ronmentS3cret",
    "argument": "Argum3ntS3cret",
    "flag": "Fl4gS3cret",
    "url": "Url4ndS3cret",
    "query": "Qu3ryS3cret",
    "at": "W1th@S3cret",
    "token": "hf_T0kenT0kenT0kenT0ken",
    "header": "B3arerS3cret",
    "note": "N0teS3cret",
    "failure": "F4ilureS3cret",
    "slash": "Sl4sh/S3cret",
    "dash": "-D4shS3cret",
    "user": "Us3rS3cret",
    "pat": "P4tS3cret",
    "short": "Sh0rtS3cret",
    "key": "AIzaG00gleS3cretG00gleS3cret",
}

TRAIN = """
import contextlib, os, sys
from pathlib import Path
from ckpt_callbacks import CheckpointError, Run
from tests.faults.harness import FrozenLoop, checkpointer
run = Path(sys.argv[1])
one = checkpointer(run, on_error="warn", background=False)
one.save(f"from https://me:{os.environ['NOTE']}@example.org/data, password={os.environ['NOTE']}")
FrozenLoop(one).run(6)
Run(run).pin("latest", f"see https://me:{os.environ['NOTE']}@example.org")
Run(run).request(f"token={os.environ['NOTE']}")
for directory in (f"s3://me:{os.environ['FAILURE']}@bucket/run", f"https://{os.environ['FAILURE']}@host/run@best"):
    for option in ("directory", "resume"):
        try:
            target = directory if option == "directory" else run / "fork"
            FrozenLoop(checkpointer(target, resume=directory)).run(2)
        except CheckpointError as error:
            print(error, file=sys.stderr)
os.chmod(run / "snapshots", 0o500)
FrozenLoop(checkpointer(run, on_error="warn", background=False)).run(10)
"""


def test_no_secret_reaches_a_file_or_a_log(tmp_path: Path) -> None:
    """A real process with secrets in its environment, its arguments, its notes and the URLs that it is given."""
    arguments = [
        *("--api-key", SECRETS["argument"], f"--wandb-token={SECRETS['flag']}", SECRETS["token"]),
        f"postgresql://me:{SECRETS['url']}@db.example.org/runs",
        f"https://me:{SECRETS['at']}@example.org",
        f"https://example.org/data?user=me&token={SECRETS['query']}",
        *("--header", f"Authorization: Bearer {SECRETS['header']}"),
        f"https://me:{SECRETS['slash']}@example.org/data",
        *("--token", SECRETS["dash"], "-u", f"me:{SECRETS['user']}"),
        *(f"--pat={SECRETS['pat']}", "--db.pw", SECRETS["short"], SECRETS["key"]),
    ]
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, str(tmp_path / "run"), *arguments],
        env={**os.environ, **{f"{name.upper()}_TOKEN": value for name, value in SECRETS.items()}}
        | {"NOTE": SECRETS["note"], "FAILURE": SECRETS["failure"]},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "resumed from" in done.stderr
    said = {"stderr": done.stderr, "stdout": done.stdout}
    said |= {str(path): path.read_bytes().decode(errors="replace") for path in tmp_path.rglob("*") if path.is_file()}
    assert len(said) > 20
    found = [(place, name) for place, text in said.items() for name, secret in SECRETS.items() if secret in text]
    found += [(place, "at") for place, text in said.items() if SECRETS["at"].partition("@")[2] in text]
    assert found == []
    command = Run(tmp_path / "run").latest.manifest.provenance["command"]  # type: ignore[union-attr]
    assert "--api-key" in command
    assert "postgresql://***@db.example.org/runs" in command


def test_a_directory_with_a_password_is_refused_without_it(tmp_path: Path) -> None:
    """The error is for a log as well."""
    with pytest.raises(ConfigurationError, match=r"s3://\*\*\*@bucket/run.*not available yet"):
        BaseCheckpointer("s3://me:Passw0rd@bucket/run")


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077, 0o002])
def test_files_are_for_whom_the_umask_lets_in(tmp_path: Path, umask: int) -> None:
    """Every file and directory has the modes that any program's would have, and no more."""
    before = os.umask(umask)
    try:
        run = undisturbed(tmp_path / "run")
        Run(run).request("from outside")
        FrozenLoop(checkpointer(run)).run(12)
    finally:
        os.umask(before)
    paths = [path for path in (run, *run.rglob("*")) if not path.is_symlink()]
    assert len(paths) > 20
    for path in paths:
        expected = (0o777 if path.is_dir() else 0o666) & ~umask
        assert stat.S_IMODE(path.stat().st_mode) == expected, path
