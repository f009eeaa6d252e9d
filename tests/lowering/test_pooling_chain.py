"""Average pools through the whole chain: one rounding each, windows whole."""
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.toy_chain import run_chain

IMAGE = torch.randn(1, 3, 9, 14, generator=torch.Generator().manual_seed(0))


def test_a_shortcut_that_is_averaged_before_its_convolution(toy, calibrated, tmp_path):
    """ResNet-D: AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False), then 1 x 1."""

    def body(self, x):
        x = F.relu(self.stem(x))
        short = self.short(F.avg_pool2d(x, 2, 2, 0, True, False))
        return self.out(F.relu(self.down(x) + short))

    model = toy(body, stem=nn.Conv2d(3, 8, 3, padding=1), short=nn.Conv2d(8, 8, 1),
                down=nn.Conv2d(8, 8, 3, 2, 1), out=nn.Conv2d(8, 4, 1))
    chain = run_chain(model, IMAGE, calibrated, tmp_path)
    assert chain.kinds.count('avg_pool') == 2 and chain.kinds.count('concat') == 1
    assert [list(i.attrs['kernel']) for i in chain.instructions if i.op == 'bpu.avg_pool'] == [
        [2, 2], [1, 2]]
    assert chain.comparison['max_lsb'] <= 1 and not chain.findings


@pytest.mark.parametrize('pool, kernels', [
    (lambda x: F.avg_pool2d(x, 3, 2, 1), [[3, 3]]),
    (lambda x: F.adaptive_avg_pool2d(x, (3, 7)), [[3, 2]]),
    (lambda x: F.avg_pool2d(x, 3, 3, 0, divisor_override=4), [[3, 3]]),
], ids=['padded', 'adaptive', 'divisor'])
@pytest.mark.parametrize('dtype', ['int8', 'int16'])
def test_a_pool_has_one_rounding(toy, calibrated, tmp_path, pool, kernels, dtype):
    rules = [dict(op='tanh', dtype=dtype), dict(op='avg_pool2d', dtype=dtype)]
    chain = run_chain(toy(lambda self, x: pool(x.tanh()) ** 2), IMAGE, calibrated, tmp_path, rules)
    found = [list(i.attrs['kernel']) for i in chain.instructions if i.op == 'bpu.avg_pool']
    assert found == kernels
    assert chain.comparison['max_lsb'] <= 1 and not chain.findings


@pytest.mark.parametrize('kernel', [5, 9, 13])
def test_pools_of_a_pyramid_share_the_scale_of_their_input(toy, calibrated, tmp_path, kernel):
    """SPP: max-pools of stride 1 beside their input, joined without a rounding."""

    def body(self, x):
        x = self.stem(x).sigmoid()
        pooled = F.max_pool2d(x, kernel, 1, kernel // 2)
        return self.out(torch.cat([x, pooled, F.adaptive_max_pool2d(x, 1).expand_as(x)], 1))

    model = toy(body, stem=nn.Conv2d(3, 4, 1), out=nn.Conv2d(12, 4, 1))
    chain = run_chain(model, IMAGE, calibrated, tmp_path)
    assert chain.kinds == ['conv2d', 'table', 'max_pool', 'reduce_max', 'tile', 'concat',
                           'conv2d', 'transpose']
    assert chain.comparison['max_lsb'] <= 1 and not chain.findings
