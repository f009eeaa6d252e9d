"""A sample's augmentation depends on (seed, epoch, image index) and on nothing else."""
import copy
import pickle
import random

import numpy as np
import pytest
import torch
from mmengine.registry import DATASETS
from mmengine.runner import Runner
from torch.utils.data import Dataset

from mmdet_bpu.engine.seeded_data import EpochIndex, seeded_dataloader, seeded_generators

SIZE = 6


@DATASETS.register_module()
class DrawingDataset(Dataset):
    """Each sample: its index and one number of each generator."""
    metainfo = dict(classes=('a', ))

    def __len__(self):
        return SIZE

    def __getitem__(self, index):
        return index, random.random(), np.random.rand(), torch.rand(()).item()


def draws(epochs, workers=0, persistent=False, sampler='DefaultSampler', seed=5, count=SIZE):
    """{epoch: {index: draws}} of a training loader."""
    loader = Runner.build_dataloader(
        seeded_dataloader(
            dict(batch_size=2, num_workers=workers, persistent_workers=persistent,
                 dataset=dict(type='DrawingDataset'),
                 sampler=dict(type=sampler, shuffle=True)), seed),
        seed=seed)
    result = {}
    for epoch in epochs:
        loader.sampler.set_epoch(epoch)
        taken = 0
        for batch in loader:
            for index, *numbers in zip(*batch):
                result.setdefault(epoch, {}).setdefault(int(index), []).append(tuple(numbers))
                taken += 1
            if taken >= count:
                break
    return result


def test_workers_and_persistence_change_nothing():
    alone = draws((0, 1))
    assert draws((0, 1), workers=2) == alone
    assert draws((0, 1), workers=2, persistent=True) == alone


def test_a_resumed_run_draws_what_the_first_one_would_have():
    assert draws((1, ))[1] == draws((0, 1))[1]


def test_epochs_images_and_seeds_differ():
    first = draws((0, 1))
    numbers = [tuple(values) for epoch in first.values() for values in epoch.values()]
    assert len(set(numbers)) == 2 * SIZE
    assert draws((0, ), seed=6)[0] != first[0]


def test_a_sampler_without_end_gives_each_pass_new_numbers():
    taken = draws((0, ), sampler='InfiniteSampler', count=2 * SIZE)[0]
    assert all(len(set(values)) == 2 for values in taken.values())


def test_generators_are_put_back():
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = random.random(), np.random.rand(), torch.rand(()).item()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    with seeded_generators(3, 4):
        random.random(), np.random.rand(), torch.rand(())
    assert (random.random(), np.random.rand(), torch.rand(()).item()) == expected


@pytest.mark.parametrize('through', [copy.copy, lambda index: pickle.loads(pickle.dumps(index))])
def test_an_index_keeps_its_epoch_on_its_way_to_a_worker(through):
    index = through(EpochIndex(7, 3))
    assert index == 7 and index.epoch == 3


def test_attributes_of_the_wrapped_dataset_are_there():
    loader = Runner.build_dataloader(
        seeded_dataloader(
            dict(batch_size=2, num_workers=0, dataset=dict(type='DrawingDataset'),
                 sampler=dict(type='DefaultSampler', shuffle=False)), 0), seed=0)
    assert loader.dataset.metainfo == DrawingDataset.metainfo
    assert not loader.sampler.shuffle
    with pytest.raises(AttributeError):
        loader.dataset.no_such_thing
