"""Augmentation that is the same whoever loads the image: seeded per (seed, epoch, image index).

The sampler hands out indices that know their epoch; the dataset wrapper seeds Python's, numpy's and
torch's generators from (seed, epoch, index) while it prepares that one sample, and puts the
previous states back. So a sample does not depend on the number of workers, on
``persistent_workers``, on what was loaded before it, or on whether the run was resumed.
"""
import contextlib
import copy
import random
from typing import Any, Iterator, Optional, Union

import numpy as np
import torch
from mmengine.dist import get_world_size
from mmengine.registry import DATA_SAMPLERS, DATASETS
from torch.utils.data import DataLoader, Dataset, Sampler


class EpochIndex(int):
    """A dataset index that carries its epoch, through batch samplers and to workers."""

    epoch = 0

    def __new__(cls, index: int, epoch: int = 0) -> 'EpochIndex':
        self = super().__new__(cls, index)
        self.epoch = epoch
        return self


@DATA_SAMPLERS.register_module()
class EpochIndexSampler(Sampler):
    """Wrap a sampler so that its indices are :class:`EpochIndex`.

    Epochs are those told by ``set_epoch``; a sampler that goes on for ever (``InfiniteSampler``)
    starts another one whenever it has drawn as many indices as the data set has.

    Args:
        dataset (Dataset): The data set.
        sampler (dict): Config of the wrapped sampler.
        seed (int, optional): Seed of the wrapped sampler. Defaults to None.
    """

    def __init__(self, dataset: Dataset, sampler: dict, seed: Optional[int] = None) -> None:
        self.sampler = DATA_SAMPLERS.build(sampler, default_args=dict(dataset=dataset, seed=seed))
        self.size = max(len(dataset), 1)
        self.epoch = 0

    def __iter__(self) -> Iterator[EpochIndex]:
        processes = get_world_size()
        for position, index in enumerate(self.sampler):
            yield EpochIndex(index, self.epoch + position * processes // self.size)

    def __len__(self) -> int:
        return len(self.sampler)

    def set_epoch(self, epoch: int) -> None:
        """Tell the epoch that the next iteration is."""
        self.epoch = epoch
        if hasattr(self.sampler, 'set_epoch'):
            self.sampler.set_epoch(epoch)

    def __getattr__(self, name: str) -> Any:
        if name == 'sampler':  # not there yet, while it is being copied or unpickled
            raise AttributeError(name)
        return getattr(self.sampler, name)


@DATASETS.register_module()
class SeededDataset(Dataset):
    """Wrap a data set so that each sample has random generators of its own.

    Args:
        dataset (dict | Dataset): The wrapped data set or its config.
        seed (int): Seed of the run.
    """

    def __init__(self, dataset: Union[dict, Dataset], seed: int) -> None:
        self.dataset = DATASETS.build(dataset) if isinstance(dataset, dict) else dataset
        self.seed = seed

    def full_init(self) -> None:
        """Load annotations, if the wrapped data set does that late."""
        if hasattr(self.dataset, 'full_init'):
            self.dataset.full_init()

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        epoch = getattr(index, 'epoch', 0)
        with seeded_generators(self.seed, epoch, int(index)):
            return self.dataset[int(index)]

    @property
    def pipeline(self) -> Any:
        """Transforms of the wrapped data set; hooks that switch pipelines set it here."""
        return self.dataset.pipeline

    @pipeline.setter
    def pipeline(self, pipeline: Any) -> None:
        self.dataset.pipeline = pipeline

    def __getattr__(self, name: str) -> Any:
        if name == 'dataset':  # not there yet, while it is being copied or unpickled
            raise AttributeError(name)
        return getattr(self.dataset, name)


@contextlib.contextmanager
def seeded_generators(*entropy: int) -> Iterator[None]:
    """Seed Python's, numpy's and torch's CPU generators inside; restore their states after.

    Args:
        entropy (int): Non-negative integers; each tuple gives an independent stream.
    """
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    words = [int(word) for word in np.random.SeedSequence(entropy).generate_state(3)]
    random.seed(words[0])
    np.random.seed(words[1])
    # Only this generator: torch.manual_seed would reseed the accelerators as well.
    torch.default_generator.manual_seed(words[2])
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def seeded_dataloader(loader: Union[DataLoader, dict], seed: int) -> Union[DataLoader, dict]:
    """Dataloader config with data set and sampler wrapped; a built loader is left as it is.

    Args:
        loader (DataLoader | dict): Training dataloader.
        seed (int): Seed of the run.
    """
    if isinstance(loader, DataLoader) or loader['dataset'].get('type') == 'SeededDataset':
        return loader
    loader = copy.deepcopy(loader)
    loader['dataset'] = dict(type='SeededDataset', dataset=loader['dataset'], seed=seed)
    loader['sampler'] = dict(type='EpochIndexSampler', sampler=loader['sampler'])
    return loader
