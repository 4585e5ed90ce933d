"""``python -m ckpt_callbacks.cli`` is ``ckpt``."""

from __future__ import annotations

from ckpt_callbacks.cli import main

main()
