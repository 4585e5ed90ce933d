"""Every private attribute of Keras that this package touches (read from keras 3.15.1).

One function each: what it is, and what would break without it. A new Keras release is checked against these pages.
"""

from ckpt_callbacks.keras.private import batches, datasets, fits, models, variables

__all__ = ["batches", "datasets", "fits", "models", "variables"]
