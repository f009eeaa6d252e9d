"""Many readers of one database: DataLoader workers, threads, ranks."""
import multiprocessing
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler
from torch.utils.data import DataLoader

from mmdet_bpu.datasets import CocoLMDBDataset

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
