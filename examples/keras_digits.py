"""Digits with Keras on TensorFlow. Kill it anywhere and run it again: it ends with the same weights.

python -m examples.keras_digits runs/keras
python -m examples.keras_digits runs/compare --callback BackupAndRestore       # Keras' own, for comparison
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import numpy as np
from keras import layers

from ckpt_callbacks import every_epochs, every_steps, on_best, on_end
from ckpt_callbacks.keras import Checkpointer, load_weights
from examples import digits

BATCH = 32


def build(steps: int) -> keras.Model:
    """A small convolutional network with dropout, AdamW and a cosine schedule over ``steps`` steps."""
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            *(layers.Conv2D(16, 3, padding="same", activation="relu"), layers.Conv2D(32, 3, padding="same")),
            *(layers.ReLU(), layers.MaxPooling2D(), layers.Dropout(0.25), layers.Flatten()),
            *(layers.Dense(64, activation="relu"), layers.Dropout(0.5), layers.Dense(10)),
        ]
    )
    model.compile(
        optimizer=keras.optimizers.AdamW(keras.optimizers.schedules.CosineDecay(3e-3, steps)),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


class Steps(keras.callbacks.Callback):
    """Prints each finished step, so that `examples.demo` knows when to strike."""

    def on_train_batch_end(self, batch, logs=None):
        """Print the step."""
        print(f"step {int(self.model.optimizer.iterations)}", flush=True)


def sha256(model: keras.Model) -> str:
    """Digest of all weights, bit for bit, in order."""
    digest = hashlib.sha256()
    for array in model.get_weights():
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def main() -> None:
    """Train, then print what came of it as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--callback", choices=["Checkpointer", "BackupAndRestore", "none"], default="Checkpointer")
    options = parser.parse_args()

    keras.utils.set_random_seed(7)
    (x, y), validation, (x_test, y_test) = digits.load()
    model = build(steps=digits.EPOCHS * -(-len(x) // BATCH))

    callbacks: list[keras.callbacks.Callback] = [Steps()]
    if options.callback == "Checkpointer":
        ckpt = Checkpointer(
            options.directory,
            monitor="val_loss",
            save=every_steps(20) | every_epochs(1) | on_best() | on_end(),
        )
        callbacks.append(ckpt)
    elif options.callback == "BackupAndRestore":
        callbacks.append(keras.callbacks.BackupAndRestore(options.directory, save_freq=20, delete_checkpoint=False))
    history = model.fit(
        *(x, y),
        batch_size=BATCH,
        epochs=digits.EPOCHS,
        validation_data=validation,
        callbacks=callbacks,
        verbose=0,
    )

    result = {"sha256": sha256(model), "epochs_in_history": len(history.epoch)}
    if options.callback == "Checkpointer":
        load_weights(model, f"{options.directory}@best")
        accuracy = model.evaluate(x_test, y_test, verbose=0, return_dict=True)["accuracy"]
        result |= {"best_step": ckpt.best.step, "best": ckpt.best.metrics["val_loss"], "accuracy": accuracy}
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
