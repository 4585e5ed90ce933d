"""Where lives are forked: a process that is warm, and that has no framework, no thread and nothing of the tests."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor

import pytest


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Executor]:
    """That process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        yield executor
