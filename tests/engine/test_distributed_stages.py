"""Two processes train and calibrate as one."""
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

PROCESSES = 2


@pytest.fixture(scope='module')
def ranks(trained, staged, tmp_path_factory):
    """Models of both ranks after QAT from float weights: calibration first, then one epoch.

    Each rank learns the rounding of blocks from its own images.
    """
    root = tmp_path_factory.mktemp('ranks')
    cfg = staged('qat', root / 'tiny_qat', load_from=str(trained / 'tiny_float' / 'epoch_2.pth'),
                 train_cfg__max_epochs=1, launcher='pytorch',
                 bpu__calibration__adaround=dict(by='block', iterations=3, batches=1))
    cfg.dump(root / 'cfg.py')
    script = Path(__file__).with_name('run_stage_on_ranks.py')
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-m', 'torch.distributed.run', '--nproc_per_node',
         str(PROCESSES), '--standalone', str(script), str(root / 'cfg.py'), str(root)],
        capture_output=True, text=True, timeout=300,
        env={**os.environ, 'CUDA_VISIBLE_DEVICES': ''})  # two processes on the CPU
    assert done.returncode == 0, done.stderr[-3000:]
    return root, [torch.load(root / f'rank_{rank}.pth', weights_only=True)
                  for rank in range(PROCESSES)]


def test_both_ranks_end_with_the_same_model(ranks):
    first, second = ranks[1]
    assert list(first) == list(second)
    assert not [name for name in first if not torch.equal(first[name], second[name])]


def test_scales_are_those_of_one_process_on_the_same_images(ranks, trained):
    checkpoint = torch.load(trained / 'tiny_calibration' / 'epoch_1.pth', weights_only=True)
    alone = checkpoint['state_dict']
    names = [name for name in alone if name.startswith('quant.') and name.endswith('scale')]
    assert names
    for name in names:
        assert torch.allclose(ranks[1][0][name], alone[name], rtol=0.01), name


def test_the_checkpoint_holds_the_random_states_of_every_rank(ranks):
    checkpoint = torch.load(ranks[0] / 'tiny_qat' / 'epoch_1.pth', weights_only=True)
    states = checkpoint['bpu_random_states']
    assert len(states) == PROCESSES
    assert checkpoint['meta']['bpu_stage'] == 'qat'
