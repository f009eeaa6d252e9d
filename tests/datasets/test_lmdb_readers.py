"""Many readers of one database: DataLoader workers, threads, ranks."""
import multiprocessing
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from mmcv.transforms import TestTimeAug
from mmdet.registry import TRANSFORMS
from mmengine.dataset import DefaultSampler
from torch.utils.data import DataLoader

from mmdet_bpu.datasets import CocoLMDBDataset, pack_coco
from mmdet_bpu.errors import BpuError

PIPELINE = [dict(type='LoadImageFromFile')]


@pytest.mark.parametrize('method', ['fork', 'spawn'])
def test_worker_processes_read(packed, method):
    dataset = CocoLMDBDataset(lmdb=str(packed), pipeline=PIPELINE)
    expected = [dataset[i]['img'] for i in range(len(dataset))]  # opened in the parent as well
    workers = 2 if method == 'fork' else 1
    loader = DataLoader(dataset, batch_size=2, num_workers=workers, collate_fn=list,
                        multiprocessing_context=method, persistent_workers=True)
    for _ in range(2):
        found = [sample['img'] for batch in loader for sample in batch]
        assert all(map(np.array_equal, expected, found)) and len(found) == len(expected)


def test_threads_read_at_the_same_time(packed):
    dataset = CocoLMDBDataset(lmdb=str(packed), pipeline=PIPELINE)
    expected = [dataset[i]['img'] for i in range(len(dataset))]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda i: dataset[i % len(expected)]['img'], range(400)))
    assert all(np.array_equal(found[i], expected[i % len(expected)]) for i in range(400))


def test_ranks_of_distributed_training_share_the_images(packed, tmp_path):
    def rank_reads(rank, queue):
        torch.distributed.init_process_group(
            'gloo', f'file://{tmp_path}/rendezvous', rank=rank, world_size=2)
        dataset = CocoLMDBDataset(lmdb=str(packed), pipeline=PIPELINE)
        sampler = DefaultSampler(dataset, shuffle=True, seed=3, round_up=False)
        loader = DataLoader(dataset, sampler=sampler, num_workers=1, collate_fn=list)
        queue.put([sample['img_id'] for batch in loader for sample in batch])
        torch.distributed.destroy_process_group()

    context = multiprocessing.get_context('fork')
    queue = context.Queue()
    ranks = [context.Process(target=rank_reads, args=(rank, queue)) for rank in range(2)]
    for process in ranks:
        process.start()
    read = [queue.get(timeout=120) for _ in ranks]
    for process in ranks:
        process.join(60)
        assert process.exitcode == 0
    dataset = CocoLMDBDataset(lmdb=str(packed))
    assert [len(ids) for ids in read] == [4, 4]
    assert sorted(read[0] + read[1]) == sorted(
        dataset.get_data_info(i)['img_id'] for i in range(len(dataset)))


def test_samples_of_a_batch_are_those_read_one_by_one(packed):
    dataset = CocoLMDBDataset(lmdb=str(packed), pipeline=[])
    indices = [3, 0, 3, -1, 5]
    assert dataset.__getitems__(indices) == [dataset[i] for i in indices]
    first, _, again, *_ = dataset.__getitems__(indices)
    assert first is not again and first['instances'] is not again['instances']
    with pytest.raises(IndexError):
        dataset.__getitems__([0, 99])
    assert dataset.__getitems__([0]) == [dataset[0]]


class Moved(CocoLMDBDataset):
    """Changes a sample after it was read."""

    def get_data_info(self, idx):
        sample = super().get_data_info(idx)
        for instance in sample['instances']:
            instance['bbox'] = [side + 1 for side in instance['bbox']]
        return sample


class Repeated(CocoLMDBDataset):
    """Each image twice."""

    def __len__(self):
        return 2 * super().__len__()

    def __getitem__(self, idx):
        return super().__getitem__(idx // 2)


@pytest.mark.parametrize('kind', [Moved, Repeated])
def test_subclass_gives_a_batch_what_it_gives_one_by_one(packed, kind):
    dataset = kind(lmdb=str(packed), pipeline=[])
    indices = list(range(len(dataset)))
    assert dataset.__getitems__(indices) == [dataset[i] for i in indices]


def test_database_packed_anew_under_a_data_set_is_not_mixed_in(coco_files, packed):
    dataset = CocoLMDBDataset(lmdb=str(packed), pipeline=PIPELINE)
    loader = DataLoader(dataset, batch_size=4, num_workers=1, collate_fn=list)
    assert sum(map(len, loader)) == 8
    coco_files.rewrite(annotations=coco_files.content()['annotations'][:3])
    pack_coco(*coco_files, packed, overwrite=True)
    dataset[0]  # this process keeps reading what it opened
    with pytest.raises(BpuError, match='was packed anew since this data set was built'):
        list(loader)
    CocoLMDBDataset(lmdb=str(packed))
    with pytest.raises(BpuError, match='was packed anew'):
        dataset[0]


def test_ground_truth_reaches_the_stock_metric_through_any_pipeline(packed):
    pack = dict(type='mmdet.PackDetInputs', meta_keys=('img_id', ))
    built = TRANSFORMS.build(pack)
    nested = dict(type=TestTimeAug, transforms=[[dict(type='mmdet.RandomFlip', prob=0.)],
                                                        [pack]])
    for last in (pack, built, nested):
        sample = CocoLMDBDataset(lmdb=str(packed), test_mode=True, pipeline=[*PIPELINE, last])[0]
        data_sample = sample['data_samples']
        data_sample = data_sample[0] if isinstance(data_sample, list) else data_sample
        assert len(data_sample.instances) == 2
    assert built.meta_keys == ('img_id', )
