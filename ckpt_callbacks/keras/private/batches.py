"""Where a fit gets its batches from: the epoch iterator and its data adapters."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import keras

from ckpt_callbacks.keras.private.datasets import is_dataset, steps_of

__all__ = [
    "begin_iteration",
    "count_steps",
    "data_behind",
    "draw_index",
    "draws_indices",
    "has_workers",
    "iterate",
    "iterates_at_once",
    "kind_of_data",
    "length",
    "lives_on",
    "loads_ahead",
    "parts_of",
    "put_back_length",
    "py_dataset",
    "replace_epochs",
    "replace_iterators",
    "replace_py_dataset",
    "serves_many_epochs",
]


def replace_epochs(epoch_iterator: Any, wrap: Callable[[Callable[[], Iterator[Any]]], Iterator[Any]]) -> None:
    """``EpochIterator._enumerate_iterator``: the generator behind each epoch, of (first step, last step, iterator).

    Without it, batches that were trained on can't be passed over before the first hook of a resumed epoch.
    """
    kind, alive = type(epoch_iterator), weakref.ref(epoch_iterator)
    epoch_iterator._enumerate_iterator = lambda: wrap(lambda: kind._enumerate_iterator(alive()))


def replace_iterators(epoch_iterator: Any, wrap: Callable[[Callable[[], Any]], Any]) -> None:
    """``EpochIterator._get_iterator``: called, and iterated at once, whenever a new iterator over the data is made.

    It is the instant whose random state fixes the order, and there is no hook at it.
    """
    kind, alive = type(epoch_iterator), weakref.ref(epoch_iterator)
    epoch_iterator._get_iterator = lambda: wrap(lambda: kind._get_iterator(alive()))


def count_steps(epoch_iterator: Any, steps: int) -> None:
    """``EpochIterator._steps_seen``: how much of its iterator is used up, by which it knows when to make a new one."""
    epoch_iterator._steps_seen += steps


def kind_of_data(epoch_iterator: Any) -> str:
    """``EpochIterator.data_adapter``: what the data is, by the class that Keras chose for it (`ArrayDataAdapter`)."""
    return type(epoch_iterator.data_adapter).__name__


def begin_iteration(epoch_iterator: Any) -> None:
    """``TFEpochIterator._distributed_dataset``, ``TFDatasetAdapter._dataset``: iterate the data once, and draw nothing.

    A shuffled `tf.data.Dataset` takes another seed each time it is iterated; there is no way to set its count.
    """
    dataset = getattr(epoch_iterator, "_distributed_dataset", None)
    if dataset is None:
        dataset = epoch_iterator.data_adapter._dataset
    iter(dataset)


def iterate(data: Any, times: int) -> None:
    """The same for a `tf.data.Dataset` that was passed to fit; other data don't remember how often they were."""
    if hasattr(data, "element_spec"):
        for _ in range(times):
            iter(data)


def iterates_at_once(epoch_iterator: Any) -> bool:
    """Whether making an iterator iterates the `tf.data.Dataset` (TensorFlow); else its first fetch does."""
    return hasattr(epoch_iterator, "_distributed_dataset")


def serves_many_epochs(epoch_iterator: Any) -> bool:
    """``EpochIterator.steps_per_epoch``: with it an iterator is used until the data end, over several epochs."""
    return epoch_iterator.steps_per_epoch is not None


def lives_on(epoch_iterator: Any) -> bool:
    """``EpochIterator._current_iterator``: whether an iterator waits for the next epoch; without it, that epoch would
    begin the data anew when a finished fit is carried on with more epochs."""
    return serves_many_epochs(epoch_iterator) and epoch_iterator._current_iterator is not None


def loads_ahead(epoch_iterator: Any) -> bool:
    """Whether a thread of TensorFlow's loads batches before they are asked for: on TensorFlow every adapter gives fit a
    `tf.data.Dataset`, whose iterators load ahead even where no ``prefetch`` stands; elsewhere the user's own."""
    return iterates_at_once(epoch_iterator) or kind_of_data(epoch_iterator) == "TFDatasetAdapter"


def py_dataset(epoch_iterator: Any) -> Any:
    """``PyDatasetAdapter.py_dataset``: the user's data set, whose attributes are state; None for other data."""
    return getattr(epoch_iterator.data_adapter, "py_dataset", None)


def draws_indices(epoch_iterator: Any) -> bool:
    """Whether batches come, on the torch backend, from a torch `DataLoader` that loads by indices without workers.

    Keras reads arrays by such a loader of its own (``ArrayDataAdapter.get_torch_dataloader``); the user's is in
    ``TorchDataLoaderAdapter._dataloader``. Its sampler must be torch's: others may draw as they go.
    """
    if keras.backend.backend() != "torch":
        return False
    if kind_of_data(epoch_iterator) == "ArrayDataAdapter":
        return True
    from ckpt_callbacks._torch_data.private import by_index, knows_its_draws  # imports torch

    loader: Any = getattr(epoch_iterator.data_adapter, "_dataloader", None)
    return by_index(loader) and not loader.num_workers and knows_its_draws(loader)


def draw_index(iterator: Any) -> None:
    """Go on by a batch in an iterator of such a loader, without loading it."""
    from ckpt_callbacks._torch_data.private import pass_over  # imports torch

    pass_over(iterator)


def data_behind(epoch_iterator: Any) -> Any:
    """The user's data: ``PyDatasetAdapter.py_dataset``, ``TorchDataLoaderAdapter._dataloader``,
    ``TFDatasetAdapter._dataset``; None for others. Generators, orders and variables that they keep would begin anew in
    another process."""
    held = vars(epoch_iterator.data_adapter)
    return next((held[name] for name in ("py_dataset", "_dataloader", "_dataset") if name in held), None)


def parts_of(data: Any) -> dict[str, Any]:
    """The objects in a `PyDataset`, torch `DataLoader` or `tf.data.Dataset` that may remember; of other data, none."""
    if isinstance(data, keras.utils.PyDataset):
        return {"dataset": data}
    if is_dataset(data):
        functions = [one._func for step in steps_of(data) for one in step._functions() if hasattr(one, "_func")]
        return {f"functions[{number}]": one for number, one in enumerate(functions)}
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(data, torch.utils.data.DataLoader):
        return {}
    names = ("dataset", "sampler", "batch_sampler", "generator", "collate_fn")
    return {name: part for name in names if (part := getattr(data, name)) is not None}


def replace_py_dataset(epoch_iterator: Any, stand_in: Any) -> None:
    """``PyDatasetAdapter.py_dataset``: let batches be loaded, or passed over, by a stand-in; not where workers load."""
    if epoch_iterator.data_adapter.enqueuer is None:
        epoch_iterator.data_adapter.py_dataset = stand_in


def has_workers(epoch_iterator: Any) -> bool:
    """``PyDatasetAdapter.enqueuer``: whether worker threads or processes load the batches."""
    return getattr(epoch_iterator.data_adapter, "enqueuer", None) is not None


def length(epoch_iterator: Any) -> int | None:
    """``EpochIterator._num_batches``: found out at the end of the first epoch, if the data doesn't tell it."""
    found: int | None = epoch_iterator._num_batches
    return found


def put_back_length(epoch_iterator: Any, batches: int | None) -> None:
    """Set what ``length`` gave; without it a resumed epoch ends, and iterates, in another way."""
    epoch_iterator._num_batches = batches
