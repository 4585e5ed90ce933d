"""Fresh memory: whole pages of this process alone."""

from __future__ import annotations

import os

import pytest

from ckpt_callbacks.state.pages import PAGE, aligned, fresh


@pytest.mark.parametrize("nbytes", [0, 1, PAGE, PAGE + 1])
def test_it_is_at_least_as_much_and_begins_at_a_page(nbytes: int) -> None:
    """And is zero."""
    memory = fresh(nbytes)
    assert memory.nbytes == max(aligned(nbytes), PAGE) >= nbytes
    assert memory.ctypes.data % PAGE == 0
    assert not memory.any()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of threads beside a fork
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_what_a_child_writes_is_its_own() -> None:
    """Restored state lies here: a worker that changes its copy must not change its parent's."""
    memory = fresh(PAGE)
    child = os.fork()
    if not child:
        memory[0] = 7
        os._exit(int(memory[0]))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert memory[0] == 0
