"""Fresh memory: whole pages of this process alone."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ckpt_callbacks.state.memory import pages
from ckpt_callbacks.state.memory.pages import PAGE, aligned, fresh


@pytest.mark.parametrize("nbytes", [0, 1, PAGE, PAGE + 1])
def test_it_is_at_least_as_much_and_begins_at_a_page(nbytes: int) -> None:
    """And is zero."""
    memory = fresh(nbytes)
    assert memory.nbytes == max(aligned(nbytes), PAGE) >= nbytes
    assert memory.ctypes.data % PAGE == 0
    assert not memory.any()


def test_more_than_the_machine_has_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some systems promise any amount, and kill who makes use of it."""
    monkeypatch.setattr(pages, "_PHYSICAL", 10 * PAGE)
    assert fresh(10 * PAGE).nbytes == 10 * PAGE
    with pytest.raises(MemoryError, match="this machine has 40,960"):
        fresh(10 * PAGE + 1)


FORKS = """
import os
from ckpt_callbacks.state.memory.pages import PAGE, fresh
memory = fresh(PAGE)
child = os.fork()
if not child:
    memory[0] = 7
    os._exit(int(memory[0]))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), memory[0])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_what_a_child_writes_is_its_own() -> None:
    """Restored state lies here: a worker that changes its copy must not change its parent's."""
    done = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["7", "0"]
