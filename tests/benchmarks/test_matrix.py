"""`make matrix`: a slice of it, so that the command stays true."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from benchmarks import matrix


@pytest.mark.parametrize("name", matrix.SUITES)
def test_a_row(name):
    """Ours is exact at every place; the framework's own callback, saving as often, is not - and the table says so."""
    suite = matrix.SUITES[name]
    job = matrix._jobs(suite)[0]
    row = matrix._row(suite, job)
    assert set(row.ours.values()) == {"exact"}
    assert set(row.theirs.values()) == {"not exact"}
    console = Console(width=150, file=io.StringIO())
    console.print(matrix._table(suite, [row]))
    shown = console.file.getvalue()
    assert job in shown
    assert shown.count("1 of 1") == shown.count("0 of 1") == len(suite.places)
