"""A ``.hbm`` of an earlier format version opens and gives the outputs that it gave then.

``tests/data/version_0_1.hbm`` was written by mmdet_bpu 0.1.0 from convolutions (one with a
residual), a max-pool, a table, a reshape and two linear layers; ``version_0_1.npz`` holds an image
and the outputs that the simulator of that version gave for it.
"""
from pathlib import Path

import numpy as np
import torch

from mmdet_bpu.executors.simulator import HbmSimulator

DATA = Path(__file__).resolve().parents[1] / 'data'


def test_a_file_of_version_0_1_gives_the_outputs_that_it_gave_then():
    simulator = HbmSimulator(DATA / 'version_0_1.hbm')
    recorded = np.load(DATA / 'version_0_1.npz')
    outputs = simulator.run({'image': torch.from_numpy(recorded['image'])})
    assert [spec.dtype for spec in simulator.outputs] == ['si32', 'si16']
    for index, spec in enumerate(simulator.outputs):
        expected = recorded[f'out_{index}']
        assert len(np.unique(expected)) > 50
        assert np.array_equal(outputs[spec.name].numpy(), expected)
    assert simulator.metadata == {'colour order': 'RGB', 'scale': 0.02}
