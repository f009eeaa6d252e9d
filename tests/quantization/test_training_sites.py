"""What prediction quantizes and training does not run is said once."""
from types import SimpleNamespace

import pytest
import torch

from mmdet_bpu.engine.hooks import QuantStateHook
from mmdet_bpu.quantization import prepare, quantization_of
from tests.stock_detectors import calibrate
from tests.stock_families import SHAPE, build

IMAGES = torch.randn(2, 3, *SHAPE, generator=torch.Generator().manual_seed(5))


def trained(kind: str, losses_of):
    """A small stock detector after one training forward."""
    model = prepare(build(kind), dict(input_shape=SHAPE, calibration=dict(observer='minmax')))
    losses_of(calibrate(model, IMAGES), IMAGES)
    return model


def warnings_of(model) -> list:
    """What the hook says in three steps."""
    said = []
    runner = SimpleNamespace(model=model, logger=SimpleNamespace(warning=said.append))
    hook = QuantStateHook()
    for _ in range(3):
        hook.after_train_iter(runner, 0)
    return said


@pytest.mark.parametrize('kind', ['conditional', 'fcos', 'rtmdet'])
def test_stock_training_runs_every_quantized_site(kind, losses_of):
    model = trained(kind, losses_of)
    assert quantization_of(model).untrained == []
    assert warnings_of(model) == []


def test_sites_of_prediction_alone_are_named_once(toy):
    def body(detector, image):
        image = torch.tanh(image)
        return image if detector.training else torch.sigmoid(image)

    image = torch.randn(2, 3, 16, 24, generator=torch.Generator().manual_seed(5))
    model = prepare(toy(body), dict(input_shape=(16, 24), calibration=dict(observer='minmax')))
    calibrate(model, image).train()(image)
    assert quantization_of(model).untrained == ['/sigmoid.0']
    message, = warnings_of(model)
    assert '1 quantized sites run in prediction alone' in message
    assert message.endswith('/sigmoid.0')
