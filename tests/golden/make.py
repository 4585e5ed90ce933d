"""Make golden snapshots: ``python -m tests.golden.make format-2``. Once for each format; those that are there stay."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.golden.models import train_keras, train_lightning, train_plain

HERE = Path(__file__).parent


def main(version: str) -> None:
    """Train each for two epochs, and keep what a reader needs."""
    sys.orig_argv = ["python", "-m", "tests.golden.make", version]  # no path of the machine
    train_plain(HERE / version / "plain")
    train_lightning(HERE / version / "lightning", 2)
    train_keras(HERE / version / "keras", 2)
    for name in ("trace.bin", "events.jsonl", ".lock", "best", "latest"):
        for path in (HERE / version).glob(f"*/{name}"):
            path.unlink()


if __name__ == "__main__":
    main(sys.argv[1])
