"""Small training jobs for Lightning, one for each way that data come. The model and the run are `lightning_jobs`'s."""

from __future__ import annotations

import random
from typing import Any, NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import CombinedLoader
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
    get_worker_info,
)
from torchdata.stateful_dataloader import StatefulDataLoader

from ckpt_callbacks._torch_data import source, workers
from tests.jobs import lightning_jobs
from tests.jobs.lightning_jobs import BATCH_SIZE, Augmented, Job, Net


class Sums(Net):
    """Sums up whatever batches it gets: a dict or list of loaders gives several, some of them None."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        batches = list(batch.values()) if isinstance(batch, dict) else batch
        losses = [self._loss(one) for one in batches if one is not None]
        loss = torch.stack(losses).sum()
        self.log("train_loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self._loss(batch))


# Data sets -----------------------------------------------------------------------------------------------------------


class Everything(Augmented):
    """Draws from Python's, NumPy's and torch's generators for each sample."""

    def __getitem__(self, index: int) -> Any:
        x, y = super().__getitem__(index)
        return x + 0.1 * random.random(), y


class OwnGenerator(Augmented):
    """Draws from a generator of its own, made at the first sample as many do."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor, lazy: bool = False) -> None:
        super().__init__(x, y)
        self.lazy = lazy
        self.rng = None if lazy else np.random.default_rng(3)

    def __getitem__(self, index: int) -> Any:
        if self.rng is None:
            self.rng = np.random.default_rng(torch.initial_seed() % 2**32)
        return self.x[index] + 0.1 * float(self.rng.normal()), self.y[index]


class Mixes(Augmented):
    """Mixes each sample with one that it gave before: it remembers."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor) -> None:
        super().__init__(x, y)
        self.seen: list[int] = []

    def __getitem__(self, index: int) -> Any:
        self.seen.append(index)
        other = random.choice(self.seen)
        return 0.7 * self.x[index] + 0.3 * self.x[other], self.y[index]


class Counts(Augmented):
    """Gets less noisy as it is used."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor) -> None:
        super().__init__(x, y)
        self.calls = 0

    def __getitem__(self, index: int) -> Any:
        self.calls += 1
        return self.x[index] + torch.randn(6) / (1 + self.calls), self.y[index]


class Shards(IterableDataset):
    """Each worker reads its share, shuffled in a buffer with Python's generator."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor, sized: bool = False) -> None:
        self.x, self.y = x, y
        if sized:
            self.__class__ = SizedShards

    def __iter__(self) -> Any:
        info = get_worker_info()
        first, stride = (info.id, info.num_workers) if info else (0, 1)
        buffer: list[int] = []
        for index in range(first, len(self.x) // 8 * 8, stride):
            buffer.append(index)
            if len(buffer) == 5:
                yield self._sample(buffer.pop(random.randrange(5)))
        while buffer:
            yield self._sample(buffer.pop(int(torch.randint(len(buffer), ()))))

    def _sample(self, index: int) -> Any:
        return self.x[index] + 0.1 * torch.randn(6), self.y[index]


class SizedShards(Shards):
    """The same, with a length."""

    def __len__(self) -> int:
        return len(self.x)


class Endless:
    """No data set and no loader: an iterator that goes on from epoch to epoch."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor) -> None:
        self.batches = self._read(x, y)

    def _read(self, x: torch.Tensor, y: torch.Tensor) -> Any:
        while True:
            index = torch.randperm(len(x))[:BATCH_SIZE]
            yield x[index] + 0.1 * random.random(), y[index]

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        return next(self.batches)


class Batches:
    """An iterable of batches that is no DataLoader, with a length."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return 6

    def __iter__(self) -> Any:
        order = np.random.permutation(len(self.x))
        for begin in range(0, 24, BATCH_SIZE):
            index = order[begin : begin + BATCH_SIZE]
            yield self.x[index] + 0.1 * torch.randn(6), self.y[index]


# Samplers ------------------------------------------------------------------------------------------------------------


class Shuffles(Sampler):
    """A batch sampler that shuffles by one of the global generators when it begins."""

    def __init__(self, size: int, by: str) -> None:
        self.size, self.by = size, by

    def __len__(self) -> int:
        return -(-self.size // BATCH_SIZE)

    def __iter__(self) -> Any:
        order = list(range(self.size))
        if self.by == "random":
            random.shuffle(order)
        elif self.by == "numpy":
            np.random.shuffle(order)
        else:
            order = torch.randperm(self.size).tolist()
        for begin in range(0, self.size, BATCH_SIZE):
            yield order[begin : begin + BATCH_SIZE]


class AsItGoes(Shuffles):
    """Draws each batch from the generator that training draws from as well, and doesn't repeat itself."""

    def __iter__(self) -> Any:
        left = list(range(self.size))
        while left:
            yield [left.pop(int(torch.randint(len(left), ()))) for _ in range(min(BATCH_SIZE, len(left)))]


class Unsized:
    """A batch sampler that can't tell how many batches it has: Lightning fetches one ahead."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __iter__(self) -> Any:
        return iter(Shuffles(self.size, "torch"))


class CountsEpochs(Shuffles):
    """Shuffles by the number of its own iterations."""

    epoch = 0

    def __iter__(self) -> Any:
        self.epoch += 1
        self.order = np.random.default_rng(self.epoch).permutation(self.size).tolist()
        for begin in range(0, self.size, BATCH_SIZE):
            yield self.order[begin : begin + BATCH_SIZE]


class Buckets(Shuffles):
    """Makes its batches once, and shuffles them in their place for each epoch, some of them within."""

    def __init__(self, size: int, generator: str) -> None:
        super().__init__(size, generator)
        self.batches = [list(range(begin, min(begin + BATCH_SIZE, size))) for begin in range(0, size, BATCH_SIZE)]

    def __iter__(self) -> Any:
        random.shuffle(self.batches)
        random.shuffle(self.batches[0])
        return iter(self.batches)


class Pools(Shuffles):
    """Draws from each of three classes in turn, without replacement, over the epochs."""

    def __init__(self, size: int, generator: str) -> None:
        super().__init__(size, generator)
        self.pools: dict[int, list[int]] = {0: [], 1: [], 2: []}

    def _draw(self, kind: int) -> int:
        if not self.pools[kind]:
            self.pools[kind] = list(range(kind, self.size, 3))
            random.shuffle(self.pools[kind])
        return self.pools[kind].pop()

    def __iter__(self) -> Any:
        for _ in range(4):
            yield [self._draw(k % 3) for k in range(BATCH_SIZE)]


class Order(Shuffles):
    """Keeps a long order, an array of each class's share of it, and shuffles them in their places."""

    def __init__(self, size: int, generator: str) -> None:
        super().__init__(size, generator)
        self.order = list(range(5000))
        self.shares = {kind: np.arange(kind, size, 2) for kind in (0, 1)}

    def __iter__(self) -> Any:
        random.shuffle(self.order)
        np.random.shuffle(self.shares[self.order[0] % 2])
        picked = [*(index for index in self.order if index < self.size), *self.shares[1].tolist()]
        for begin in range(0, len(picked), BATCH_SIZE):
            yield picked[begin : begin + BATCH_SIZE]


class SetEpoch(Shuffles):
    """Shuffles by the epoch that Lightning sets."""

    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Any:
        order = np.random.default_rng(self.epoch).permutation(self.size).tolist()
        for begin in range(0, self.size, BATCH_SIZE):
            yield order[begin : begin + BATCH_SIZE]


class Reshapes(DataLoader):
    """Has an `__iter__` of its own, which draws."""

    def __iter__(self) -> Any:
        for x, y in super().__iter__():
            yield x + 0.1 * torch.randn(6), y


class Reloads(pl.LightningDataModule):
    """Makes its loader anew, from another half of the data each time."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor) -> None:
        super().__init__()
        self.x, self.y = x, y

    def train_dataloader(self) -> Any:
        half = torch.randperm(len(self.x))[:14]
        return DataLoader(TensorDataset(self.x[half], self.y[half]), BATCH_SIZE // 2, shuffle=True)

    def val_dataloader(self) -> Any:
        return DataLoader(TensorDataset(self.x, self.y), 9)


class Grows(pl.LightningDataModule):
    """Makes its loaders anew, with batches of a size that grows while it is read."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor) -> None:
        super().__init__()
        self.data, self.size = TensorDataset(x, y), 3

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        self.size = 3 + (self.size + 1) % 3
        return batch

    def train_dataloader(self) -> Any:
        return DataLoader(self.data, self.size, shuffle=True)

    def val_dataloader(self) -> Any:
        return DataLoader(self.data, 2 * self.size)


class KnowsItsPlace(pl.LightningDataModule):
    """Counts the samples that were used, in a state of its own, and makes loaders that begin there."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor) -> None:
        super().__init__()
        self.data, self.used = TensorDataset(x, y), 0

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        self.used += len(batch[0]) if self.trainer.training else 0
        return batch

    def train_dataloader(self) -> Any:
        epoch, begin = divmod(self.used, len(self.data))
        order = np.random.default_rng(epoch).permutation(len(self.data)).tolist()
        return DataLoader(self.data, BATCH_SIZE, sampler=order[begin:])

    def val_dataloader(self) -> Any:
        return DataLoader(self.data, 9)

    def state_dict(self) -> dict[str, Any]:
        return {"used": self.used}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.used = state["used"]


class Caches(Dataset):
    """Loads each sample once."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor) -> None:
        self.x, self.y = x, y
        self.cache: dict[int, Any] = {}

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Any:
        if index not in self.cache:
            self.cache[index] = (2 * self.x[index], self.y[index])
        return self.cache[index]


class Curriculum(pl.Callback):
    """Changes an attribute of the data set in mid-epoch, and in an epoch's beginning."""

    def on_train_epoch_start(self, trainer: Any, *_: Any) -> None:
        trainer.train_dataloader.dataset.calls = 10 * trainer.current_epoch

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 2:
            trainer.train_dataloader.dataset.calls += 3


def worker_seed(worker: int) -> None:
    """A user's `worker_init_fn`."""
    np.random.seed(worker + torch.initial_seed() % 1000)


class Collate:
    """A collate function with a generator and a count of its own."""

    def __init__(self) -> None:
        self.rng, self.calls = np.random.default_rng(7), 0

    def __call__(self, samples: Any) -> Any:
        self.calls += 1
        x, y = default_collate(samples)
        return x + 0.01 * self.calls * float(self.rng.random()), y


OF_THE_MODULE = np.random.default_rng(9)


def collate_by_global(samples: Any) -> Any:
    """Draws from a generator under a global name."""
    x, y = default_collate(samples)
    return x + 0.01 * float(OF_THE_MODULE.random()), y


class Validates(pl.LightningDataModule):
    """Validates on a random part of the data, in workers that live on and draw."""

    def __init__(self, x: Any, y: Any, **workers: Any) -> None:
        super().__init__()
        self.x, self.y, self.workers = x, y, workers

    def train_dataloader(self) -> DataLoader:
        return DataLoader(TensorDataset(self.x, self.y), BATCH_SIZE, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        chosen = torch.randperm(len(self.x))[:10].tolist()
        return DataLoader(Subset(Everything(self.x, self.y), chosen), 5, **self.workers)


class Sample(NamedTuple):
    """What a list of files has for each."""

    index: int
    label: float


class CountsReadings(Shards):
    """Shuffles its list in its place, by random numbers and by how often it was read to the end."""

    epoch = 0

    def __init__(self, x: torch.Tensor, y: torch.Tensor) -> None:
        super().__init__(x, y)
        self.order = list(range(len(x) // 8 * 8))

    def __iter__(self) -> Any:
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        random.shuffle(self.order)
        for index in self.order:
            if index % workers == worker:
                yield self.x[index] + 0.1 * self.epoch, self.y[index]
        self.epoch += 1


class Files(Dataset):
    """A list of what there is, as of image files, some of which get another label."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor) -> None:
        self.x, self.y = x, y
        self.samples = [Sample(index, float(y[index])) for index in range(len(x))]
        self.records = [{"index": index, "weight": 1.0} for index in range(len(x))]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        sample, record = self.samples[index], self.records[index]
        return self.x[sample.index] * record["weight"], torch.tensor([sample.label])


class Curates(pl.Callback):
    """Shuffles a data set's list after each epoch, gives some samples other labels, and replaces a subset's indices."""

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        subset = trainer.train_dataloader.dataset
        data = subset.dataset
        random.shuffle(data.samples)
        data.samples[3] = data.samples[3]._replace(label=random.random())
        data.records[2]["weight"] += random.random()
        subset.indices = np.random.permutation(len(data))[:27].tolist()


class DrawsLoaders(pl.LightningDataModule):
    """Makes its loaders anew, of a part that generators of its own draw."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor) -> None:
        super().__init__()
        self.data, self.rng, self.random = TensorDataset(x, y), np.random.default_rng(3), random.Random(4)

    def train_dataloader(self) -> Any:
        picked = self.rng.permutation(len(self.data))[:20].tolist()
        return DataLoader(Subset(self.data, picked), BATCH_SIZE, shuffle=True)

    def val_dataloader(self) -> Any:
        return DataLoader(Subset(self.data, self.random.sample(range(len(self.data)), 8)), BATCH_SIZE)


class Reweighs(pl.Callback):
    """Changes a sampler's weights, a tensor, as training goes on."""

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        sampler = trainer.train_dataloader.sampler
        sampler.weights[batch_idx] += 1.0
        sampler.weights[3] *= 1.5


class Fetches(Net):
    """Gets the iterator over the loader, and fetches for itself."""

    def training_step(self, dataloader_iter: Any) -> torch.Tensor:  # type: ignore[override]
        batch, _, _ = next(dataloader_iter)
        loss = self._loss(batch)
        self.log("train_loss", loss, batch_size=BATCH_SIZE)
        return loss


def collate(samples: Any) -> Any:
    """A user's own, which draws."""
    x, y = torch.utils.data.default_collate(samples)
    return x * (1 + 0.1 * torch.rand(())), y


# The table -----------------------------------------------------------------------------------------------------------


def _one(
    data: Any = Everything,
    kind: Any = DataLoader,
    module: Any = Net,
    trainer: Any = None,
    callbacks: Any = list,
    **loader: Any,
) -> Job:
    """A job with one loader; an option that is a function gets the data set."""

    def loaders(x: torch.Tensor, y: torch.Tensor) -> Any:
        dataset: Dataset = data(x, y)
        batch = {} if "batch_sampler" in loader or "batch_size" in loader else {"batch_size": BATCH_SIZE}
        made = {
            key: value(dataset) if getattr(value, "__name__", "") == "<lambda>" else value
            for key, value in loader.items()
        }
        return kind(dataset, **batch, **made)

    return Job(module, loaders=loaders, trainer=trainer or {}, callbacks=callbacks)


def _several(mode: str, join: Any, trainer: Any = None, **loader: Any) -> Job:
    """A job with three loaders of different length."""

    def loaders(x: torch.Tensor, y: torch.Tensor) -> Any:
        sizes = (27, 14, 10)
        made = [DataLoader(Everything(x[:n], y[:n]), BATCH_SIZE, shuffle=True, **loader) for n in sizes]
        return CombinedLoader(join(made), mode)

    return Job(Sums, loaders=loaders, trainer=trainer or {})


def _named(loaders: list[Any]) -> dict[str, Any]:
    return dict(zip("abc", loaders, strict=True))


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(11)


JOBS: dict[str, Job] = {
    # Without workers
    "augmentation": _one(shuffle=True),
    "drop_last and a generator": _one(shuffle=True, drop_last=True, generator=lambda _: _generator()),
    "batch_size=None": _one(sampler=lambda d: Shuffles(len(d), "torch"), batch_size=None, module=Net),
    "sampler with a generator and replacement": _one(
        sampler=lambda d: RandomSampler(d, replacement=True, generator=_generator())
    ),
    "weighted sampler": _one(sampler=lambda d: WeightedRandomSampler([1.0 + i % 3 for i in range(len(d))], len(d))),
    "subset sampler": _one(sampler=lambda d: SubsetRandomSampler(range(3, len(d)))),
    "distributed sampler on one device": _one(sampler=lambda d: DistributedSampler(d, 1, 0)),
    "batch sampler over a sampler": _one(batch_sampler=lambda d: BatchSampler(RandomSampler(d), 3, True)),
    "batch sampler that shuffles by random": _one(batch_sampler=lambda d: Shuffles(len(d), "random")),
    "batch sampler that shuffles by numpy": _one(batch_sampler=lambda d: Shuffles(len(d), "numpy")),
    "batch sampler that draws as it goes": _one(batch_sampler=lambda d: AsItGoes(len(d), "torch")),
    "batch sampler that counts its epochs": _one(batch_sampler=lambda d: CountsEpochs(len(d), "")),
    "batch sampler that shuffles batches in their place": _one(batch_sampler=lambda d: Buckets(len(d), "")),
    "batch sampler that draws from pools over the epochs": _one(batch_sampler=lambda d: Pools(len(d), "")),
    "batch sampler with a long order and arrays": _one(batch_sampler=lambda d: Order(len(d), "")),
    "batch sampler with set_epoch": _one(batch_sampler=lambda d: SetEpoch(len(d), "")),
    "batch sampler without a length": _one(batch_sampler=lambda d: Unsized(len(d))),
    "batch sampler without a length, data with a generator": _one(
        OwnGenerator, batch_sampler=lambda d: Unsized(len(d))
    ),
    "batch sampler without a length, data that count": _one(Counts, batch_sampler=lambda d: Unsized(len(d))),
    "batch sampler without a length, a collate function with a generator": _one(
        collate_fn=lambda _: Collate(), batch_sampler=lambda d: Unsized(len(d))
    ),
    "collate function that draws": _one(shuffle=True, collate_fn=collate, pin_memory=True),
    "collate function with a generator": _one(shuffle=True, collate_fn=lambda _: Collate()),
    "a generator under a global name": _one(shuffle=True, collate_fn=lambda _: collate_by_global),
    "sampler whose weights change": _one(
        sampler=lambda d: WeightedRandomSampler([1.0] * len(d), len(d)), callbacks=lambda: [Reweighs()]
    ),
    "data set with a generator": _one(OwnGenerator, shuffle=True),
    "data set that makes a generator": _one(lambda x, y: OwnGenerator(x, y, lazy=True), shuffle=True),
    "data set that remembers": _one(Mixes, shuffle=True),
    "data set that counts": _one(Counts, shuffle=True),
    "loader with an __iter__ of its own": _one(kind=Reshapes, shuffle=True),
    "stream": _one(Shards),
    "stream with a length": _one(SizedShards),
    "iterator without end": Job(loaders=Endless, trainer={"limit_train_batches": 5}),
    "iterable that is no DataLoader": Job(loaders=Batches),
    "a module that fetches for itself": _one(module=Fetches, shuffle=True),
    "validation on a random part": Job(loaders=Validates),
    "validation in persistent workers": Job(
        loaders=lambda x, y: Validates(x, y, num_workers=1, persistent_workers=True),
        trainer={"num_sanity_val_steps": 0},
    ),
    "early iterator": _one(module=lambda: Net("onecycle"), shuffle=True),
    "limit_train_batches=4": _one(shuffle=True, trainer={"limit_train_batches": 4}),
    "limit_train_batches=0.6": _one(shuffle=True, trainer={"limit_train_batches": 0.6}),
    "overfit_batches": _one(shuffle=True, trainer={"overfit_batches": 5}),
    "loaders made anew in each epoch": Job(loaders=Reloads, trainer={"reload_dataloaders_every_n_epochs": 1}),
    "loaders made anew in every other epoch": Job(
        loaders=Reloads, trainer={"reload_dataloaders_every_n_epochs": 2, "max_epochs": 5}
    ),
    "loaders made anew, by an attribute": Job(loaders=Grows, trainer={"reload_dataloaders_every_n_epochs": 1}),
    "loaders made anew, by the data module's state": Job(
        loaders=KnowsItsPlace, trainer={"reload_dataloaders_every_n_epochs": 1}
    ),
    "loaders made anew, by the data module's generators": Job(
        loaders=DrawsLoaders, trainer={"reload_dataloaders_every_n_epochs": 1}
    ),
    "samples that a callback shuffles and relabels": Job(
        loaders=lambda x, y: DataLoader(Subset(Files(x, y), range(len(x))), BATCH_SIZE, shuffle=True),
        callbacks=lambda: [Curates()],
    ),
    "data that are cached": _one(Caches, shuffle=True),
    "attributes that a callback sets": Job(
        loaders=lambda x, y: DataLoader(Counts(x, y), BATCH_SIZE, shuffle=True), callbacks=lambda: [Curriculum()]
    ),
    # Workers
    "workers": _one(shuffle=True, num_workers=2),
    "workers, generator, prefetch_factor, worker_init_fn": _one(
        shuffle=True, num_workers=2, generator=lambda _: _generator(), prefetch_factor=3, worker_init_fn=worker_seed
    ),
    "workers and a batch sampler that draws as it goes": _one(
        batch_sampler=lambda d: AsItGoes(len(d), "torch"), num_workers=2
    ),
    "workers and a collate function with a generator": _one(
        shuffle=True, num_workers=2, collate_fn=lambda _: Collate()
    ),
    "workers and a generator under a global name": _one(
        shuffle=True, num_workers=2, collate_fn=lambda _: collate_by_global
    ),
    "workers and a data set with a generator": _one(OwnGenerator, shuffle=True, num_workers=2),
    "workers and a data set that makes a generator": _one(
        lambda x, y: OwnGenerator(x, y, lazy=True), shuffle=True, num_workers=2
    ),
    "workers and a data set that remembers": _one(Mixes, shuffle=True, num_workers=2),
    "workers and an early iterator": _one(module=lambda: Net("onecycle"), shuffle=True, num_workers=2),
    "workers and limit_train_batches": _one(shuffle=True, num_workers=2, trainer={"limit_train_batches": 4}),
    "spawned workers": _one(shuffle=True, num_workers=1, multiprocessing_context="spawn"),
    "stream with workers": _one(Shards, num_workers=2),
    "stream with a length and workers": _one(SizedShards, num_workers=2, trainer={"limit_train_batches": 6}),
    # Workers that live on
    "persistent workers": _one(shuffle=True, num_workers=2, persistent_workers=True),
    "persistent workers and limit_train_batches": _one(
        shuffle=True, num_workers=2, persistent_workers=True, trainer={"limit_train_batches": 4}
    ),
    "persistent workers, data set with a generator": _one(
        OwnGenerator, shuffle=True, num_workers=2, persistent_workers=True
    ),
    "persistent workers, data set that makes a generator": _one(
        lambda x, y: OwnGenerator(x, y, lazy=True), shuffle=True, num_workers=2, persistent_workers=True
    ),
    "persistent workers and an early iterator": _one(
        module=lambda: Net("onecycle"), shuffle=True, num_workers=2, persistent_workers=True
    ),
    "persistent workers and a stream that counts its readings": _one(
        CountsReadings, num_workers=2, persistent_workers=True
    ),
    "persistent workers and a stream": _one(Shards, num_workers=2, persistent_workers=True),
    # StatefulDataLoader
    "stateful loader": _one(kind=StatefulDataLoader, shuffle=True),
    "stateful loader with workers": _one(kind=StatefulDataLoader, shuffle=True, num_workers=2),
    "stateful loader with persistent workers": _one(
        kind=StatefulDataLoader, shuffle=True, num_workers=2, persistent_workers=True
    ),
    "stateful loader with persistent workers, a stream that counts its readings": _one(
        CountsReadings, kind=StatefulDataLoader, num_workers=2, persistent_workers=True
    ),
    "stateful loader, early iterator": _one(module=lambda: Net("onecycle"), kind=StatefulDataLoader, shuffle=True),
    "stateful loader with workers, early iterator": _one(
        module=lambda: Net("onecycle"), kind=StatefulDataLoader, shuffle=True, num_workers=2
    ),
    "stateful loader of a stream": _one(Shards, kind=StatefulDataLoader),
    # Several loaders
    "loaders, max_size_cycle": _several("max_size_cycle", _named),
    "loaders, min_size": _several("min_size", list, {"max_epochs": 5}),
    "loaders, max_size": _several("max_size", _named),
    "loaders with workers, max_size_cycle": _several("max_size_cycle", list, num_workers=1),
    "loaders with persistent workers, max_size_cycle": _several(
        "max_size_cycle", list, num_workers=1, persistent_workers=True
    ),
    "loaders, of which one is a stream": Job(
        Sums,
        loaders=lambda x, y: [
            DataLoader(Everything(x, y), BATCH_SIZE, shuffle=True),
            DataLoader(Shards(x[:10], y[:10]), BATCH_SIZE),
        ],
    ),
}


def _no_splices() -> None:
    source.Splices.draw = lambda self, function: function()  # type: ignore[method-assign, assignment]


def _no_stamps() -> None:
    workers._restore = lambda dataset, state: None


def _no_attributes() -> None:
    source.memory.put_back = lambda root, saved, before: None


SWITCHES = {"splices": _no_splices, "stamps": _no_stamps, "attributes": _no_attributes}


def train(name: str, *args: Any, without: str | None = None, **options: Any) -> None:
    """Run a job of this table, as `lightning_jobs.train` does."""
    if without is not None:
        SWITCHES[without]()
    lightning_jobs.train(JOBS[name], *args, **options)
