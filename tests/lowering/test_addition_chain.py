"""Additions without a product before their relu, through the whole chain."""
import torch
import torch.nn.functional as F
from torch import nn

from tests.toy_chain import run_chain

IMAGE = torch.randn(1, 3, 8, 12, generator=torch.Generator().manual_seed(0))


def test_branches_of_several_resolutions_are_added_and_cut_at_zero(toy, calibrated, tmp_path):
    """HRNet: three branches, two of them resized, meet in additions before one relu."""

    def body(self, x):
        fine = F.relu(self.stem(x))
        half = F.interpolate(self.second(fine), scale_factor=2, mode='nearest')
        quarter = F.interpolate(self.third(fine), scale_factor=4, mode='nearest')
        return self.out(F.relu(fine + half + quarter))

    model = toy(body, stem=nn.Conv2d(3, 4, 1), second=nn.Conv2d(4, 4, 3, 2, 1),
                third=nn.Conv2d(4, 4, 4, 4), out=nn.Conv2d(4, 2, 1))
    chain = run_chain(model, IMAGE, calibrated, tmp_path)
    additions = [i for i in chain.instructions if i.op == 'bpu.add']
    assert [bool(i.attrs.get('relu')) for i in additions] == [False, True]
    assert '/add.1' not in chain.report, 'rounded once, after the relu'
    assert chain.comparison['max_lsb'] <= 1 and not chain.findings
    assert (chain.outputs['outputs'] != 0).any()
