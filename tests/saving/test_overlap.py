"""When a snapshot is copied while training goes on."""

from __future__ import annotations

import pytest

from ckpt_callbacks.saving import overlap
from ckpt_callbacks.saving.overlap import IdleCores, Overlap


class Clocks:
    """What the process used, and what passed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cores: float, children: int = 0) -> None:
        self.used = self.now = 100.0
        monkeypatch.setattr(overlap, "_may_use", lambda: cores)
        monkeypatch.setattr(overlap.time, "process_time", lambda: self.used)
        monkeypatch.setattr(overlap.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(overlap.multiprocessing, "active_children", lambda: [None] * children)

    def pass_by(self, seconds: float, busy: float) -> None:
        """Some time with so many cores busy."""
        self.now += seconds
        self.used += seconds * busy


@pytest.mark.parametrize(
    ("cores", "children", "busy", "idle"), [(2, 0, 1.0, 1.0), (2, 0, 1.9, 0.1), (8, 4, 1.5, 2.5), (1.5, 0, 1.0, 0.5)]
)
def test_idle_cores_are_measured(monkeypatch, cores, children, busy, idle):
    """Since the last look; a worker of a data loader has a core of its own."""
    clocks = Clocks(monkeypatch, cores, children)
    looks = IdleCores()
    for seconds in (10, 3):
        clocks.pass_by(seconds, busy)
        assert looks.look() == pytest.approx(idle)
    assert looks.look() == 0  # no time has passed


def test_a_container_grants_less(monkeypatch, tmp_path):
    """Its quota counts, not the cores that can be seen."""
    for text, most in (("50000 100000", 0.5), ("max 100000", 10**6), ("", 10**6)):
        (tmp_path / "cpu.max").write_text(text)
        monkeypatch.setattr(overlap, "_QUOTA", tmp_path / "cpu.max")
        assert 0 < overlap._may_use() <= most
    monkeypatch.setattr(overlap, "_QUOTA", tmp_path / "none")
    assert overlap._may_use() >= 1


def test_an_idle_core_copies(monkeypatch):
    """Whatever that was seen to take: the other core is training's."""
    clocks = Clocks(monkeypatch, cores=2)
    decides = Overlap()
    for _ in range(10):
        clocks.pass_by(10, 1.2)
        assert decides.pays()
        decides.took(5.0)


@pytest.mark.parametrize("costs", [{True: 1.0, False: 2.0}, {True: 2.0, False: 1.0}], ids=["beside", "at once"])
def test_with_all_cores_busy_the_faster_way_is_found(monkeypatch, costs):
    """Both are tried three times, the first snapshot aside; then the better one, and the other now and then."""
    clocks = Clocks(monkeypatch, cores=2)
    decides = Overlap()
    ways = []
    for _ in range(overlap.AGAIN + 5):
        clocks.pass_by(10, 1.9)
        ways.append(decides.pays())
        decides.took(costs[ways[-1]] if ways[1:] else 100.0)
    assert sorted(ways[1:7]) == [False] * 3 + [True] * 3
    better = costs[True] < costs[False]
    later = ways[7:]
    assert [way for way in later if way != better] == [not better]
    assert ways[overlap.AGAIN - 1] != better
