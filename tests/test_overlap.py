"""When a snapshot is copied while training goes on."""

from __future__ import annotations

import pytest

from ckpt_callbacks import overlap
from ckpt_callbacks.overlap import IdleCores, Overlap


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


def test_only_an_idle_core_copies(monkeypatch):
    """And each time anew: training may need more of them later."""
    clocks = Clocks(monkeypatch, cores=2)
    decides = Overlap(possible=True)
    answers = []
    for busy in (1.0, 1.9, 1.2):
        clocks.pass_by(10, busy)
        answers.append(decides.pays(measured=False))
    assert answers == [True, False, True]


def test_what_cannot_be_taken_again_is_not_the_first(monkeypatch):
    """A state with metrics of its own is copied so only after another one came out whole."""
    clocks = Clocks(monkeypatch, cores=2)
    decides = Overlap(possible=True)

    def pays(measured: bool) -> bool:
        clocks.pass_by(10, 1.0)
        return decides.pays(measured)

    assert [pays(True), pays(False)] == [False, True]
    decides.came_out(True)
    assert pays(True)
    decides.came_out(False)
    assert [pays(True), pays(False)] == [False, False]


def test_where_nothing_goes_on_nothing_is_hidden(monkeypatch):
    """Without a background thread, a save returns when all is durable."""
    clocks = Clocks(monkeypatch, cores=2)
    decides = Overlap(possible=False)
    clocks.pass_by(10, 1.0)
    assert not decides.pays(measured=False)
