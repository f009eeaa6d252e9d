"""Chains of functions of one value, through the whole chain: one table each."""
import numpy as np
import torch
from mmcv.cnn import HSigmoid
from torch import nn

from tests.toy_chain import run_chain

IMAGE = torch.randn(1, 3, 8, 12, generator=torch.Generator().manual_seed(0)) * 2


def test_the_hard_sigmoid_of_mmcv_is_one_table(toy, calibrated, tmp_path):
    """``clamp((x + 3) / 6, 0, 1)``: no value between is rounded."""

    def body(self, x):
        return self.out(self.gate(self.stem(x)))

    model = toy(body, stem=nn.Conv2d(3, 4, 1), gate=HSigmoid(), out=nn.Conv2d(4, 2, 3, padding=1))
    chain = run_chain(model, IMAGE, calibrated, tmp_path)
    assert chain.kinds == ['conv2d', 'table', 'conv2d', 'transpose']
    assert chain.comparison['max_lsb'] <= 1 and not chain.findings
    table = chain.instructions[1]
    scale, out = (chain.program.values[name].type.scale for name in (*table.inputs, *table.outputs))
    codes = np.arange(-128, 128, dtype=np.float64)
    expected = np.rint(np.clip((codes * scale + 3) / 6, 0, 1) / out)
    assert np.abs(np.asarray(table.attrs['entries']) - np.minimum(expected, 127)).max() <= 1
