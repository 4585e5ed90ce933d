"""The README's code runs, as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"<!-- runs with: (\w+) -->\n```python\n(.*?)```", README, re.DOTALL)

# What the reader brings: a model and data. Everything else is in the block.
GIVEN = {
    "lightning": """
import warnings; warnings.simplefilter("ignore")
import pytorch_lightning as pl, torch
from ckpt_callbacks.pytorch_lightning import Checkpointer
from tests.pytorch_lightning.conftest import Tiny, loader
class Data(pl.LightningDataModule):
    train_dataloader = val_dataloader = test_dataloader = lambda self: loader()
class Model(Tiny):
    def __init__(self):
        super().__init__()
        del self.layer
        self.backbone = torch.nn.Linear(3, 1)
    def _loss(self, batch):
        return torch.nn.functional.mse_loss(self.backbone(batch[0]), batch[1])
model, datamodule = Model(), Data()
""",
    "keras": """
from tests.keras.test_callback import build
import numpy as np
model, x, y = build(), np.ones((20, 3), "float32"), np.ones((20, 1), "float32")
""",
    "run": "",
    "torch": """
from torch import nn
backbone = nn.Linear(3, 1)
module = nn.ModuleDict({"backbone": nn.Linear(3, 1)})
""",
}
GIVEN["resumed"] = (
    GIVEN["lightning"]
    + """
for epochs in 1, 2:
    ckpt = Checkpointer("runs/report")
    pl.Trainer(max_epochs=epochs, callbacks=[ckpt], logger=False, enable_progress_bar=False).fit(model, datamodule)
"""
)


def test_every_python_block_is_run():
    """No block escapes this test."""
    assert len(BLOCKS) == README.count("```python")


def test_the_blocks_run_one_after_the_other(tmp_path):
    """A reader who copies them in order, with a model and data at hand, sees no error."""
    for given, code in BLOCKS:
        run(GIVEN[given] + code, tmp_path)


def run(code: str, directory: Path) -> None:
    root = str(Path(__file__).parent.parent)
    env = {**os.environ, "PYTHONPATH": root, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run([sys.executable, "-c", code], cwd=directory, env=env, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.fail(f"{done.stderr[-3000:]}\nin\n{code}")


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(([\w./]+)\)", README))))
def test_links_lead_somewhere(path):
    """Files that the README points to exist."""
    assert (Path(__file__).parent.parent / path).exists()
