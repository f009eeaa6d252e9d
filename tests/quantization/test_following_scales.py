"""Scales that follow, in a detector: they change no gradient, and see each batch once."""
import pytest
import torch

from mmdet_bpu.quantization import prepare, quantization_of
from mmdet_bpu.quantization.trained_scales import FollowingScale, move_scales, take_steps

SHAPE = (64, 64)
IMAGE = torch.randn(2, 3, *SHAPE, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope='module')
def trained(small_detector, calibrated, losses_of):
    """Function (kind, with_cp) -> gradients of a step, and how far it moved each int8 scale."""
    def run(kind, with_cp=False):
        scales = dict(type=kind, constant=0.5) if kind == 'following' else kind
        model = calibrated(prepare(small_detector(), dict(
            stage='qat', input_shape=SHAPE, calibration=dict(observer='minmax'),
            qat=dict(scales=scales))), IMAGE)
        for block in model.backbone.modules():
            if hasattr(block, 'with_cp'):
                block.with_cp = with_cp
        quant = quantization_of(model)
        before = {name: each.scale.item() for name, each in quant.quantizers.items()
                  if isinstance(each, FollowingScale)}
        move_scales(quant, True)
        losses = losses_of(model, IMAGE * 3)
        sum(sum(map(torch.sum, value)) if isinstance(value, list) else value.sum()
            for name, value in losses.items() if 'loss' in name).backward()
        take_steps(quant)
        return ({name: p.grad for name, p in model.named_parameters() if p.grad is not None},
                {name: quant.quantizers[name].scale.item() / scale for name, scale in before.items()})
    return run


@pytest.fixture(scope='module')
def plain(trained):
    return trained('following')


def test_gradients_are_those_of_fixed_scales(trained, plain):
    expected, _ = trained('fixed')
    assert set(expected) == set(plain[0])
    for name, gradient in expected.items():
        assert (plain[0][name] - gradient).norm() <= 1e-5 * gradient.norm() + 1e-12, name


def test_results_of_relus_are_followed_too(plain):
    moved = {name: ratio for name, ratio in plain[1].items() if 'relu' in name}
    assert moved and 1 not in moved.values()


@pytest.mark.filterwarnings('ignore:torch.utils.checkpoint')
def test_what_runs_again_is_seen_once(trained, plain):
    assert trained('following', with_cp=True)[1] == plain[1]
