"""Means and sums get no scale below the grid that their exact results lie on."""
import pytest
import torch

from mmdet_bpu.quantization import prepare, quantization_of

SHAPE = (16, 24)
IMAGE = torch.randn(2, 3, *SHAPE, generator=torch.Generator().manual_seed(5))
COUNT = 16 * 24


def scales(toy, calibrated, body) -> dict:
    model = prepare(toy(body), dict(input_shape=SHAPE, calibration=dict(observer='minmax')))
    calibrated(model, IMAGE)
    quant = quantization_of(model)
    return {name: quant.quantizer(name).scale.item()
            for name in (quant.networks[0].name(v) for v in quant.networks[0].own_values())}


@pytest.mark.parametrize('reduce, grid', [(torch.mean, 1 / COUNT), (torch.sum, 1.0)],
                         ids=['mean', 'sum'])
def test_what_was_centred_before_is_rounded_on_its_own_grid(toy, calibrated, reduce, grid):
    def body(detector, image):
        centred = image - torch.mean(image, (2, 3), keepdim=True)
        return reduce(centred, (2, 3), keepdim=True) * 2.0

    found = scales(toy, calibrated, body)
    name = 'mean.1' if reduce is torch.mean else 'sum.0'
    assert found[f'/{name}'] == pytest.approx(found['/sub.0'] * grid, rel=1e-6)


def test_a_scale_above_the_grid_is_the_observers(toy, calibrated):
    found = scales(toy, calibrated, lambda detector, image: torch.mean(
        torch.relu(image + 20.0), (2, 3), keepdim=True) * 2.0)
    largest = torch.relu(IMAGE + 20.0).mean((2, 3)).max().item()
    assert found['/mean.0'] == pytest.approx(largest / (2**15 - 1), rel=0.01)
    assert found['/mean.0'] > found['/add.0'] / COUNT
