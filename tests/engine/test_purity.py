"""The engine decides; it knows no framework, no clock, no disk and no randomness."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import ckpt_callbacks.engine

FOLDER = Path(ckpt_callbacks.engine.__file__).parent


def test_the_engine_loads_no_framework() -> None:
    """Nor numpy: a fresh interpreter that imports it has none of them."""
    program = """if True:
        import sys
        import ckpt_callbacks.engine
        heavy = {"numpy", "torch", "tensorflow", "keras", "jax", "pytorch_lightning", "lightning"}
        sys.exit(", ".join(heavy & sys.modules.keys()) or None)
    """
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=FOLDER.parents[1], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_engine_imports_nothing_that_has_effects() -> None:
    """Only what computes, itself, and the errors."""
    pure = {"__future__", "collections", "dataclasses", "datetime", "enum", "heapq", "itertools", "math", "operator"}
    pure |= {"ast", "bisect", "contextlib", "difflib"}
    allowed = pure | {"re", "typing", "ckpt_callbacks.engine", "ckpt_callbacks.errors"}
    for file in FOLDER.glob("*.py"):
        for module in _imported(file):
            assert any(module == one or module.startswith(f"{one}.") for one in allowed), f"{file.name}: {module}"


def test_the_engine_reads_no_clock() -> None:
    """``datetime`` is there for timedelta alone."""
    names = {
        node.attr for file in FOLDER.glob("*.py") for node in ast.walk(_tree(file)) if isinstance(node, ast.Attribute)
    }
    assert not names & {"now", "utcnow", "today", "time", "monotonic", "random"}


def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


def _imported(file: Path) -> set[str]:
    nodes = list(ast.walk(_tree(file)))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return plain | {node.module or "." for node in nodes if isinstance(node, ast.ImportFrom)}
