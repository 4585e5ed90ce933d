"""Any flipped byte, cut, swapped or missing file is named; a resume steps back, and sets aside what is damaged."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.damage.damages import Damage, of_a_file
from tests.damage.trials import RUNS, Trial, quiet

STRIDE = 61
KINDS = {"flipped", "cut", "longer", "removed", "swapped"}


@pytest.mark.parametrize("kind", RUNS)
def test_no_damage_passes(tmp_path: Path, kind: str) -> None:
    """Each file in every way, at some of its bytes; `make damage` tries each."""
    counts: Counter[str] = Counter()
    with quiet():
        trial = Trial(kind, tmp_path, STRIDE)
        for name in trial.names:
            counts += trial.survive_all(name)
    assert counts.keys() == KINDS
    assert counts["removed"] == len(trial.names) >= 5


@pytest.mark.parametrize("size", [1, 100, 1 << 20])
def test_the_end_of_a_file_is_always_tried(size: int) -> None:
    """And each byte of a small one, if nothing else is asked for."""
    whole = bytes(size)
    found = [damage for _, damage in of_a_file("x", whole, 7)]
    assert Damage("flipped", {"x": whole[:-1] + bytes([1 << (size - 1) % 8])}) in found
    assert Damage("cut", {"x": whole[:-1]}) in found
    assert len(list(of_a_file("x", bytes(100)))) == 100 + 100 + 3 + 1


@pytest.mark.parametrize("beside", ["", ".new"])
def test_a_miss_is_seen(tmp_path: Path, beside: str) -> None:
    """The control: of what changes nothing that anybody checks, the trial says that it went unnoticed."""
    with quiet():
        trial = Trial("one file of weights", tmp_path)
        (path,) = (tmp_path / "begins" / "snapshots").glob("000000006-*/state.json")
        name = path.relative_to(tmp_path / "begins").as_posix()
        unseen = Damage("unseen", {name + beside: path.read_bytes()})
        with pytest.raises(AssertionError, match="the check says: 3 snapshots checked, every byte: all good"):
            trial.survive("all of it", unseen)
