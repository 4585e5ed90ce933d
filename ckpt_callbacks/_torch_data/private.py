"""Every private attribute of torch that this package touches (read from torch 2.13 and torchdata 0.11).

One function each: what it is, and what would break without it. A new release of torch is checked against this page.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, cast

from torch.utils.data import DataLoader, IterableDataset, dataloader
from torch.utils.data._utils import pin_memory as torch_pin_memory

__all__ = [
    "alive",
    "begin",
    "by_index",
    "can_start_late",
    "follow_fetchers",
    "forget_iterator",
    "is_followed",
    "is_plain",
    "knows_its_draws",
    "length",
    "pass_over",
    "pin_memory",
    "start_after",
]


# A loader ------------------------------------------------------------------------------------------------------------


def is_plain(loader: Any) -> bool:
    """Whether a loader iterates as torch's own do: ``__iter__`` and ``_get_iterator`` are nothing of the user's."""
    return isinstance(loader, DataLoader) and all(
        getattr(type(loader), name).__module__.partition(".")[0] in ("torch", "torchdata")
        for name in ("__iter__", "_get_iterator")
    )


def by_index(loader: Any) -> bool:
    """Whether a loader's batches come from indices: its data set is map-style."""
    return is_plain(loader) and not isinstance(loader.dataset, IterableDataset)


def length(loader: Any) -> int | None:
    """How many batches a loader gives, if it tells."""
    try:
        return len(loader)
    except (TypeError, NotImplementedError):
        return None


def can_start_late(loader: Any) -> bool:
    """Whether ``fresh`` makes the loader's iterator with nothing drawn or sent (``DataLoader._get_iterator``)."""
    return is_plain(loader) and type(loader)._get_iterator is DataLoader._get_iterator


def knows_its_draws(loader: Any) -> bool:
    """Whether indices come from torch's own samplers, which draw from a global generator at their beginning only."""
    sampler = loader._index_sampler
    kinds = [type(sampler), *([type(sampler.sampler)] if hasattr(sampler, "sampler") else [])]
    return all(kind.__module__.startswith(("torch.utils.data", "torchdata.")) for kind in kinds)


def alive(loader: Any) -> Any:
    """The iterator whose workers live on over epochs (``_iterator``), or None."""
    keeps = getattr(loader, "persistent_workers", False) and getattr(loader, "num_workers", 0) > 0
    return loader._iterator if keeps else None


def is_followed(iterator: Any) -> bool:
    """Whether ``begin`` made this iterator, and thus its workers stamp their batches."""
    return hasattr(type(iterator), "follower")


def forget_iterator(loader: Any) -> None:
    """Let a loader make its iterator anew (``_iterator``, ``_shutdown_workers``).

    Workers may live since somebody looked at a batch; a `StatefulDataLoader` makes an iterator if asked for its state.
    """
    if alive(loader) is not None:
        loader._iterator._shutdown_workers()
        loader._iterator = None
    if is_plain(loader) and hasattr(loader, "load_state_dict"):
        loader.load_state_dict({})


# An iterator ---------------------------------------------------------------------------------------------------------


@functools.cache
def _followed(kind: type) -> type:
    """Make the subclass of one of torch's iterators that tells a ``follower`` what it does.

    ``_next_index`` draws the next batch's indices, ``_get_data`` receives what a worker sent, and ``_try_put_index``
    sends indices to a worker, unless the follower holds the iterator back.
    """

    class Followed(kind):  # type: ignore[misc]
        follower: Any = None

        def _next_index(self) -> Any:
            return self.follower.draw(super()._next_index)

        def _get_data(self) -> Any:
            number, data = super()._get_data()
            # What torch's worker sends; torchdata's sends a tuple with its state.
            self.follower.arrived(data[0] if type(data) is tuple and len(data) == 3 else data)
            return number, data

        def _try_put_index(self) -> None:
            if not self.follower.holds_back:
                super()._try_put_index()

    Followed.__name__, Followed.__qualname__ = kind.__name__, kind.__qualname__
    return Followed


def begin(loader: Any, follower: Any, start: Callable[[int], None] | None) -> Any:
    """``iter(loader)``, with its iterator followed from the first draw on.

    Args:
        loader: one of torch's own; an iterator of it that lives on is begun again.
        follower: is told what the iterator does.
        start: what new workers run instead of the ``worker_init_fn``, or None.
    """
    if alive(loader) is not None:
        follow(alive(loader), follower)
        return iter(loader)
    own = loader.worker_init_fn
    loader._get_iterator = functools.partial(_fresh, loader, follower)
    loader.worker_init_fn = start or own
    try:
        return iter(loader)
    finally:
        loader.worker_init_fn = own
        del loader._get_iterator


def _fresh(loader: Any, follower: Any) -> Any:
    """What ``_get_iterator`` gives."""
    if can_start_late(loader):
        kind = (
            dataloader._MultiProcessingDataLoaderIter if loader.num_workers else dataloader._SingleProcessDataLoaderIter
        )
        iterator = object.__new__(cast(Any, _followed(kind)))
        iterator.follower = follower
        if loader.num_workers:
            loader.check_worker_number_rationality()
        iterator.__init__(loader)
        return iterator
    iterator = type(loader)._get_iterator(loader)
    follow(iterator, follower)
    # Only torchdata's: how many indices it drew while it was made.
    follower.has_drawn(getattr(iterator, "_sampler_iter_yielded", 0))
    return iterator


def follow(iterator: Any, follower: Any) -> None:
    """Have an iterator of torch's tell what it does from now on."""
    if not is_followed(iterator):
        kind: Any = type(iterator)
        iterator.__class__ = _followed(kind)
    iterator.follower = follower


def pass_over(iterator: Any) -> None:
    """Draw the indices of a batch, and don't load it (``_next_index``, ``_num_yielded``)."""
    iterator._next_index()
    iterator._num_yielded += 1


def start_after(iterator: Any, batches: int) -> None:
    """Send workers the indices that lie before them after ``batches`` batches, each to the worker whose turn it is
    (``_worker_queue_idx_cycle``, ``_prefetch_factor``)."""
    if iterator._num_workers:
        for _ in range(batches % iterator._num_workers):
            next(iterator._worker_queue_idx_cycle)
        for _ in range(iterator._prefetch_factor * iterator._num_workers):
            iterator._try_put_index()


# A worker ------------------------------------------------------------------------------------------------------------


def follow_fetchers(dataset: Any, begin: Callable[[Any], None], fetch: Callable[[Any, Any], Any]) -> None:
    """Have the fetchers of this worker (``_DatasetKind.create_fetcher``: one an epoch) tell what they do.

    This is the one place where a worker's random numbers are seen before an iterable data set begins. It is patched in
    the worker process only, which does nothing else than load.
    """
    create = dataloader._DatasetKind.create_fetcher

    def create_fetcher(kind: Any, source: Any, auto_collation: bool, collate_fn: Any, drop_last: bool) -> Any:
        rest = (auto_collation, collate_fn, drop_last)
        if source is not dataset:
            return create(kind, source, *rest)  # a loader that the data set uses itself
        begin(collate_fn)
        fetcher = create(kind, source, *rest)
        fetcher.fetch = functools.partial(fetch, fetcher.fetch)
        return fetcher

    dataloader._DatasetKind.create_fetcher = staticmethod(create_fetcher)


def pin_memory(batch: Any) -> Any:
    """What torch's pinning thread does with a batch."""
    return torch_pin_memory.pin_memory(batch)
