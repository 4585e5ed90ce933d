"""Several checkpointers in one fit."""

from __future__ import annotations

import time
from pathlib import Path

from ckpt_callbacks import Run, every_steps, on_end, together
from ckpt_callbacks.engine import Event, Progress
from tests.loop import Loop, checkpointer

WAY_BACK = 0.5


def test_the_way_back_is_training_for_none_of_them(tmp_path: Path) -> None:
    """Whoever's snapshot it is that the state came from: `every("30m")` and `keep_tiers` go by time in training. And
    nobody's snapshot has killed the process, now that it lives."""
    near, far = (checkpointer(tmp_path / name, save=every_steps(n) | on_end()) for name, n in (("a", 4), ("b", 3)))
    Loop(near).run(4)
    Loop(far).run(6)
    owner, restored = together.begin([near, far], {}, {})
    time.sleep(WAY_BACK)
    assert owner is far
    together.resumed_at([near, far], owner, restored, skipped=6)
    for one in (near, far):
        run = Run(one.directory)
        assert not (run.path / ".resuming").exists()
        one.boundary(Progress(8, 0, 8, 8), Event.FIT_END, {}, Loop(one).capture)
        before = run.latest.manifest.elapsed
        one.end()
        assert before < run.latest.manifest.elapsed < WAY_BACK
