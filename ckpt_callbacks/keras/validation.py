"""The validation data of a fit: how often they were iterated, and what they remember from one time to the next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ckpt_callbacks.keras import private
from ckpt_callbacks.keras.sources import Iterations, Memory, irregular

__all__ = ["Validation"]


class Validation:
    """What a validation leaves behind in its data.

    Args:
        data: as passed to fit, without targets and weights.
        training: the data of training, which may share functions with these.
        deterministic: whether the user says that the data are the same whenever they are made again.
    """

    def __init__(self, data: Any, training: Any = None, deterministic: bool = False) -> None:
        self._data, self._deterministic = data, deterministic
        self._memory = Memory(data, beside=training)
        self._irregular = irregular(data, repeats=True, endlessly=True)
        if private.datasets.share_a_shuffling(data, training):
            self._irregular |= irregular(training, repeats=True, endlessly=True)
        self._iterations: Iterations | None = None
        self._before = 0  # how often earlier processes iterated them

    @property
    def validates(self) -> bool:
        """Whether there are any."""
        return self._data is not None

    @property
    def begun(self) -> int:
        """How often they were iterated."""
        return 0 if self._iterations is None else self._iterations.begun

    @property
    def variables(self) -> list[Any]:
        """Those of TensorFlow's that loading them changes."""
        return self._memory.variables

    def begins(self, iterator: Any) -> None:
        """They are about to be iterated.

        Args:
            iterator: Keras' own, which fit makes for its first validation and keeps.
        """
        if iterator is None or self._iterations is not None:
            return
        self._iterations = Iterations(iterator)
        if self._iterations.shuffles:
            self._iterations.count()

    def make_up(self, begun: int) -> None:
        """Iterate them until they were iterated ``begun`` times; data that are shuffled for training and validation
        alike count both."""
        if self._iterations is not None:
            self._iterations.make_up(begun)

    def capture(self) -> dict[str, Any]:
        """How often they were iterated, and what they remember."""
        begun = self._before if self._iterations is None else self._iterations.begun
        return {"made": self._iterations is not None, "iterations": begun, "memory": self._memory.capture()}

    def put_back(self, saved: Mapping[str, Any]) -> None:
        """Set what ``capture`` gave."""
        self._before = saved["iterations"]
        self.make_up(self._before)
        self._memory.put_back(saved["memory"])

    def complete(self, saved: Mapping[str, Any]) -> None:
        """Leave the data as a fit left them that has ended: another fit may use them next."""
        private.batches.iterate(self._data, saved["iterations"])
        self._memory.put_back(saved["memory"])

    def missing(self) -> dict[str, str]:
        """What no resume brings back -> why, and the remedy."""
        if private.datasets.is_python_generator(self._data):
            return {
                "validation data (generator)": "each validation goes on where the one before left it, and Keras draws "
                "some batches ahead: use arrays, a PyDataset or a tf.data.Dataset"
            }
        if private.datasets.runs_generators(self._data) and not self._deterministic:
            return {
                "validation data (from_generator)": "only you know whether it gives the same elements each time; if it "
                "does, pass deterministic_data=True"
            }
        lost = self._memory.lost | ({} if self._deterministic else self._irregular)
        return {f"validation data ({path})": why for path, why in lost.items()}
