"""Started by torchrun from a test: train a stage, then write each rank's model to a file."""
import sys

import torch
from mmengine.config import Config
from mmengine.dist import get_rank

from mmdet_bpu.engine.runner import BPURunner

if __name__ == '__main__':
    config, folder = sys.argv[1:]
    runner = BPURunner.from_cfg(Config.fromfile(config))
    runner.train()
    torch.save(dict(runner.model.module.state_dict()), f'{folder}/rank_{get_rank()}.pth')
