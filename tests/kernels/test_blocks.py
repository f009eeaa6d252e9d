"""Blocks cover a tensor once; work on them is spread over threads without a trace outside."""
import math
import multiprocessing
import threading

import pytest
import torch

from mmdet_bpu.kernels.reference.blocks import (BLOCK, SPREAD, Blocks, for_each_block, row_blocks,
                                    shape_blocks)
from mmdet_bpu.kernels.registry import KERNELS

CPU = torch.device('cpu')
SHAPES = [(), (7,), (0, 4), (4, 0), (3, 70000, 5), (2, 1, 300000), (200000, 1), (2, 3, 4, 20000)]
MUL = dict(multiplier=[2**14], shift=[14], out_dtypes=['si16'])


@pytest.fixture(params=[1, 2, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize('shape', SHAPES)
def test_shape_blocks_cover_each_element_once(shape, threads):
    seen = torch.zeros(shape, dtype=torch.int8)
    for index in shape_blocks(shape).parts:
        seen[index] += 1
        assert seen[index].numel() <= 2 * BLOCK
    assert (seen == 1).all()


@pytest.mark.parametrize('rows, elements', [(0, 5), (1, 10**6), (70001, 1), (525, 256), (100, 0)])
def test_row_blocks_cover_each_row_once(rows, elements, threads):
    covered = [row for block in row_blocks(rows, elements).parts for row in range(rows)[block]]
    assert covered == list(range(rows))


def test_large_work_gives_every_thread_a_share(threads):
    blocks = row_blocks(5250, 256)
    assert blocks.spread == (threads > 1)
    assert len(blocks.parts) % threads == 0
    sizes = [part.stop - part.start for part in blocks.parts]
    assert max(sizes) == math.ceil(5250 / len(sizes))


def test_small_work_stays_on_one_thread(threads):
    assert not row_blocks(SPREAD // 256 - 1, 256).spread
    assert not shape_blocks((3, SPREAD // 4)).spread


def test_workers_use_one_thread_and_leave_the_setting_alone(threads):
    seen = {}

    def work(part):
        on_main = threading.current_thread() is threading.main_thread()
        seen[part] = torch.get_num_threads(), on_main
    for_each_block(work, Blocks(list(range(8)), threads > 1), CPU)
    assert seen == dict.fromkeys(range(8), (1, threads == 1))
    assert torch.get_num_threads() == threads
    fresh = []
    thread = threading.Thread(target=lambda: fresh.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert fresh == [threads]


def test_an_error_in_a_block_reaches_the_caller(threads):
    def work(part):
        raise ValueError(f'block {part}')
    with pytest.raises(ValueError, match='block 0'):
        for_each_block(work, Blocks(list(range(4)), threads > 1), CPU)


@pytest.mark.parametrize('mode', [torch.no_grad, torch.inference_mode])
def test_kernels_give_the_same_bits_with_any_number_of_threads(mode, threads):
    generator = torch.Generator().manual_seed(0)
    lhs, rhs = (torch.randint(-128, 128, (600, 1000), generator=generator).to(torch.int8)
                for _ in range(2))
    with mode():
        result = KERNELS['bpu.mul']([lhs, rhs], MUL)[0]
    assert torch.equal(result.to(torch.int32), lhs.to(torch.int32) * rhs)


def product_in_child(values, queue):
    queue.put(KERNELS['bpu.mul']([values, values], MUL)[0].numpy().sum())


@pytest.mark.skipif('fork' not in multiprocessing.get_all_start_methods(), reason='no fork here')
def test_a_forked_child_starts_its_own_workers():
    values = torch.full((600, 1000), 3, dtype=torch.int8)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    context = multiprocessing.get_context('fork')
    queue = context.Queue()
    child = context.Process(target=product_in_child, args=(values, queue))
    try:
        for_each_block(lambda part: None, Blocks([0, 1], True), CPU)  # the parent has workers now
        child.start()
        assert queue.get(timeout=30) == 9 * 600000
        child.join(30)
    finally:
        if child.is_alive():
            child.kill()
        torch.set_num_threads(before)
