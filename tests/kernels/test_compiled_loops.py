"""Compiled loops touch each element once, on any number of threads and after a fork."""
import multiprocessing
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from mmdet_bpu.kernels import compiled_loops
from mmdet_bpu.kernels.compiled_loops import (SHARE, SWITCH, compiled, elements, is_dense,
                                                  shares)

needs_numba = pytest.mark.skipif(compiled_loops.numba is None, reason='numba is not installed')


@compiled('void(int64, int64, int32[::1])')
def count_visits(start, stop, visits):
    for index in range(start, stop):
        visits[index] += 1


@pytest.fixture(params=[1, 3])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@needs_numba
@pytest.mark.parametrize('count', [0, 1, SHARE - 1, 3 * SHARE + 1])
def test_each_element_is_visited_once(count, threads):
    visits = np.zeros(count, np.int32)
    count_visits(count, visits)
    assert (visits == 1).all()


@pytest.mark.parametrize('count, work, expected', [
    (0, 1, 1), (2 * SHARE - 1, 1, 1), (2 * SHARE, 1, 2), (9 * SHARE, 1, 3), (2, 9 * SHARE, 2)])
def test_shares_are_even_and_none_is_small(count, work, expected):
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    found = shares(count, work)
    torch.set_num_threads(before)
    assert len(found) == expected
    assert [start for start, _ in found] == [0, *(stop for _, stop in found[:-1])]
    assert found[-1][1] == count


def test_elements_share_memory_in_its_order():
    x = torch.arange(24.0).view(1, 2, 3, 4)
    for dense in (x, x.to(memory_format=torch.channels_last), x.permute(0, 3, 1, 2), x[:, 1:]):
        assert is_dense(dense)
        view = elements(dense)
        assert sorted(view) == sorted(dense.flatten().tolist())
        view[0] = -1
        assert (dense == -1).sum() == 1
        view[0] = 0
    for scattered in (x[..., ::2], x[:, :, 1:], torch.ones(1).expand(3)):
        assert not is_dense(scattered)


def visits_in_child(queue):
    visits = np.zeros(3 * SHARE, np.int32)
    count_visits(visits.size, visits)
    queue.put(int(visits.sum()))


@needs_numba
@pytest.mark.skipif('fork' not in multiprocessing.get_all_start_methods(), reason='no fork here')
def test_a_forked_child_starts_its_own_workers(threads):
    count_visits(3 * SHARE, np.zeros(3 * SHARE, np.int32))  # the parent has workers now
    context = multiprocessing.get_context('fork')
    queue = context.Queue()
    child = context.Process(target=visits_in_child, args=(queue, ))
    child.start()
    try:
        assert queue.get(timeout=30) == 3 * SHARE
        child.join(30)
    finally:
        if child.is_alive():
            child.kill()


def test_an_environment_variable_turns_them_off():
    code = 'from mmdet_bpu.kernels.compiled_loops import usable; print(usable())'
    found = subprocess.run([sys.executable, '-c', code], env={**os.environ, SWITCH: '1'},
                           capture_output=True, text=True, check=True)
    assert found.stdout == 'False\n'


@needs_numba
def test_a_folder_that_cannot_be_written_only_costs_the_cache(monkeypatch):
    def refuse(signatures, cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function 'f': no locator available")
        return lambda loop: loop
    monkeypatch.setattr(compiled_loops.numba, 'njit', refuse)
    visits = np.zeros(4, np.int32)
    compiled('void(int64, int64, int32[::1])')(count_visits.__wrapped__)(4, visits)
    assert visits.tolist() == [1] * 4
