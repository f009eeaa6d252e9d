"""Denoising queries, which exist in training alone, are not quantized."""
import copy

import pytest
import torch

from mmdet_bpu.quantization import prepare, quantization_of
from mmdet_bpu.quantization.denoising import deployed_part
from tests.stock_families import SHAPE, build

IMAGES = torch.randn(2, 3, *SHAPE, generator=torch.Generator().manual_seed(5))
ALL = slice(None)


@pytest.mark.parametrize('shape, captured, extra, batch, part', [
    ((8, 76, 256), (1, 40, 256), 36, 8, (ALL, slice(36, None), ALL)),
    ((76, 8, 256), (40, 1, 256), 36, 8, (slice(36, None), ALL, ALL)),
    ((64, 76, 76), (8, 40, 40), 36, 8, (ALL, slice(36, None), slice(36, None))),
    ((608, 256), (40, 256), 36, 8, (slice(288, None), ALL)),
    ((1, 76, 4), (1, 40, 4), 36, 1, (ALL, slice(36, None), ALL)),
    ((80, 2, 256), (40, 1, 256), 40, 2, (slice(40, None), ALL, ALL)),
    ((8, 189, 256), (1, 189, 256), 36, 8, None),
    ((320, 256), (40, 256), 36, 8, None),
    ((256, ), (256, ), 36, 8, None),
    ((8, 40), (1, 40, 256), 36, 8, None),
], ids=['queries', 'sequence-first', 'attention', 'flattened', 'one-image', 'as-many-extra', 'tokens',
        'flattened-deployed', 'no-images', 'other-rank'])
def test_the_deployed_part_of_a_tensor(shape, captured, extra, batch, part):
    assert deployed_part(shape, captured, extra, batch) == part


@pytest.fixture(scope='module')
def dino():
    """A small stock DINO, calibrated on two images without denoising queries."""
    from tests.stock_detectors import calibrate
    model = prepare(build('dino'), dict(input_shape=SHAPE, calibration=dict(observer='minmax')))
    return calibrate(model, IMAGES)


def samples():
    """Two images of one and three objects."""
    from mmengine.structures import InstanceData

    from mmdet_bpu.families.detector_path import example_samples
    given = example_samples(len(IMAGES), SHAPE)
    boxes = torch.tensor([[5.0, 6.0, 30.0, 28.0], [20.0, 10.0, 60.0, 50.0], [0.0, 0.0, 99.0, 90.0]])
    for sample, count in zip(given, (1, 3)):
        sample.gt_instances = InstanceData(bboxes=boxes[:count], labels=torch.arange(count))
    return given


def head_outputs(model, mode: str):
    """Raw outputs of the head and the losses (or detections) of one forward."""
    seen = []
    hook = model.bbox_head.register_forward_hook(lambda module, given, output: seen.append(output))
    try:
        result = model.train(mode == 'loss')(IMAGES, samples(), mode=mode)
    finally:
        hook.remove()
    return seen[0], result


def test_deployed_queries_are_in_training_what_they_are_in_prediction(dino):
    for model in (dino, copy.deepcopy(dino)):
        with torch.no_grad():
            training, _ = head_outputs(model, 'loss')
            prediction, _ = head_outputs(model, 'predict')
        for more, deployed in zip(training, prediction):
            queries = deployed.shape[2]
            assert more.shape[2] > queries
            # Bit for bit where products of more rows add up in the same order. A BLAS may choose
            # another, and what lies on a tie is then rounded to the other side.
            difference = (more[:, :, -queries:] - deployed).abs().mean()
            assert difference < 0.02 * deployed.std()  # 0.10 and 0.28 if all queries were quantized


def test_quantizers_see_in_training_what_they_see_in_prediction(dino):
    def shapes_in(mode: str) -> dict:
        seen = {}
        hooks = [quantizer.register_forward_hook(
            lambda module, given, output, key=key: seen.update({key: given[0].shape}))
            for key, quantizer in quantization_of(dino).quantizers.items()]
        with torch.no_grad():
            head_outputs(dino, mode)
        for hook in hooks:
            hook.remove()
        return seen

    assert shapes_in('loss') == shapes_in('predict')


def test_gradients_reach_the_labels_embedding(dino):
    _, losses = head_outputs(dino, 'loss')
    assert losses['dn_loss_cls'] > 0
    losses['dn_loss_cls'].backward()
    gradient = dino.dn_query_generator.label_embedding.weight.grad
    assert torch.isfinite(gradient).all() and gradient.abs().sum() > 0
