"""The data of both examples: scikit-learn's handwritten digits, 1,797 real 8x8 scans that ship inside the package."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

__all__ = ["EPOCHS", "load"]

EPOCHS = 6

Pair = tuple[np.ndarray, np.ndarray]


def load() -> tuple[Pair, Pair, Pair]:
    """Give (images, labels) to train on, to validate on, and held out; images are float32 (n, 8, 8, 1) in [0, 1]."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype("float32").reshape(-1, 8, 8, 1)
    labels = labels.astype("int64")
    x_rest, x_test, y_rest, y_test = train_test_split(images, labels, test_size=360, random_state=0, stratify=labels)
    x_train, x_val, y_train, y_val = train_test_split(x_rest, y_rest, test_size=237, random_state=0, stratify=y_rest)
    return (x_train, y_train), (x_val, y_val), (x_test, y_test)
