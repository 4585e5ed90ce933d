"""``make faults``: each system call that a resume and two saves make fails once, with each error; and readers beside.

What the tests do with some of the calls is done here with all of them: every call below the run's directory, of a run
that resumes, saves twice, deletes and reduces, is let fail with each error, with ``on_error="warn"`` and ``"raise"``.
Whatever fails: older snapshots verify, pins hold, the next process carries on and ends with the same weights, and
nothing is left over. Then readers of six kinds look again and again at a run that saves and deletes at full speed.
"""

from __future__ import annotations

import argparse
import errno
import logging
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.faults.harness import undisturbed
from tests.faults.test_any_call import fail_each_call
from tests.faults.test_two import readers_beside

ERRORS = ("EIO", "ENOSPC", "EDQUOT", "EACCES", "EROFS", "EMFILE", "ESTALE", "ENOMEM")


def main() -> int:
    """Let every call fail, read, and print how often."""
    parser = argparse.ArgumentParser(prog="benchmarks.faults", description=__doc__)
    parser.add_argument("--reads", type=int, default=500, help="of each of six kinds")
    parser.add_argument("--stride", type=int, default=1, help="only each so many-th call")
    parser.add_argument("--directory", help="where to write")
    arguments = parser.parse_args()
    logging.disable()
    try:
        with tempfile.TemporaryDirectory(dir=arguments.directory) as folder:
            met = faults(Path(folder), arguments.stride)
            seen = readers_beside(Path(folder) / "read", arguments.reads)
    finally:
        logging.disable(logging.NOTSET)
    print(f"{'calls that failed, and nothing was lost':44} {met}")
    for kind, count in sorted(Counter(kind for _, kind in seen.elements()).items()):
        print(f"{'reads beside a training: ' + kind:44} {count}")
    return 0 if {kind for _, kind in seen} <= {"whole", "gone"} else 1


def faults(folder: Path, stride: int = 1) -> int:
    """Let each call fail with each error, both ways; how many failures that were. An AssertionError: one did harm."""
    before = undisturbed(folder / "before")
    return sum(
        fail_each_call(before, _made(folder / f"{name}-{on_error}"), getattr(errno, name), on_error, stride=stride)
        for name in ERRORS
        for on_error in ("warn", "raise")
    )


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


if __name__ == "__main__":
    sys.exit(main())
