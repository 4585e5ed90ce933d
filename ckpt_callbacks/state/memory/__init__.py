"""The memory in which states wait: pages, an arena of them, copies beside training."""
