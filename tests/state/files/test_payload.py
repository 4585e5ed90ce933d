"""What a snapshot's files are read to, and what is said if that can't be."""

from __future__ import annotations

import subprocess
import sys

import pytest

READ = """
import resource, sys
from pathlib import Path
from ckpt_callbacks.errors import UnreachableError
from ckpt_callbacks.state.files import payload
text = b'{"weights":{},"rest":{"a":[' + b"[]," * 3_000_000 + b"0]}}"
used = 4096 * int(Path("/proc/self/statm").read_text().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20),) * 2)
try:
    payload.read({payload.TREE: memoryview(text)}, Path("here"))
except UnreachableError as error:
    print(error)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the memory of a process as Linux does")
def test_a_state_that_memory_can_not_be_had_for_may_be_good() -> None:
    """So it is no damage, which a resume would step over, and no raw MemoryError."""
    done = subprocess.run([sys.executable, "-c", READ], capture_output=True, text=True)
    assert "here can't be read now: memory for its state can't be had." in done.stdout, done.stderr[-2000:]
