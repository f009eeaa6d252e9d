"""Prepared detectors: states, copies, checkpoints, batches."""
import copy

import pytest
import torch
from torch import nn

from mmdet_bpu.errors import BpuError
from mmdet_bpu.graph.deploy_graph import capture_detector
from mmdet_bpu.lowering.export import export_networks
from mmdet_bpu.quantization import (finish_calibration, model_report, prepare, quantization_of,
                                    quantized_graphs, set_quant_state)
from mmdet_bpu.quantization.fold import fold_captured, fold_pair

SHAPE = (64, 64)
SETTINGS = dict(input_shape=SHAPE, calibration=dict(observer='minmax'))
IMAGE = torch.randn(2, 3, *SHAPE, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope='module')
def prepared(small_detector, calibrated):
    """A calibrated detector in state quantize; tests leave it so."""
    return calibrated(prepare(small_detector(), SETTINGS), IMAGE)


def equal(left, right):
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def close(left, right):
    return all(torch.allclose(a, b, atol=1e-4, rtol=0) for a, b in zip(left, right, strict=True))


def test_states_change_what_runs_and_go_back(prepared, run_quantized):
    quantized = run_quantized(prepared, IMAGE)
    try:
        set_quant_state(prepared, 'off')
        plain = run_quantized(prepared, IMAGE)
        set_quant_state(prepared, 'observe')
        assert close(run_quantized(prepared, IMAGE), plain), 'observing rounds nothing'
    finally:
        for quantizer in quantization_of(prepared).quantizers.values():
            quantizer.observer.reset()
        set_quant_state(prepared, 'quantize')
    assert not close(quantized, plain)
    assert equal(run_quantized(prepared, IMAGE), quantized)


def test_a_copy_runs_its_own_code_with_its_own_scales(prepared, run_quantized):
    expected = run_quantized(prepared, IMAGE)
    twin = copy.deepcopy(prepared)
    assert equal(run_quantized(twin, IMAGE), expected)
    for quantizer in quantization_of(twin).quantizers.values():
        quantizer.scale.mul_(3)
    with torch.no_grad():
        twin.neck.convs[0].conv.weight.mul_(2)
    assert not close(run_quantized(twin, IMAGE), expected)
    set_quant_state(twin, 'off')
    assert quantization_of(prepared).state == 'quantize'
    assert equal(run_quantized(prepared, IMAGE), expected), 'the original is untouched'


def test_a_copy_of_a_copy_outlives_the_original(small_detector, calibrated, run_quantized):
    model = calibrated(prepare(small_detector('-refine'), SETTINGS), IMAGE)
    expected = run_quantized(model, IMAGE)
    twin = copy.deepcopy(copy.deepcopy(model))
    del model
    assert equal(run_quantized(twin, IMAGE), expected)


def test_a_state_dict_carries_scales_into_a_freshly_prepared_model(
        prepared, small_detector, run_quantized):
    fresh = prepare(small_detector(), SETTINGS)
    assert list(fresh.state_dict()) == list(prepared.state_dict())
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.add_(0.1)
    fresh.load_state_dict(prepared.state_dict(), strict=True)
    set_quant_state(fresh, 'quantize')
    assert equal(run_quantized(fresh, IMAGE), run_quantized(prepared, IMAGE))


def test_all_that_is_added_to_the_state_dict_is_under_quant(prepared, small_detector):
    stock = set(small_detector().state_dict())
    added = set(prepared.state_dict()) - stock
    biases = {name for name in added if not name.startswith('quant.')}
    assert all(name.endswith('.bias') for name in biases), 'folding gives convolutions a bias'
    lost = stock - set(prepared.state_dict())
    assert lost and not any('conv' in name.rsplit('.', 2)[-2] for name in lost), 'batch norms'


def test_train_and_eval_switch_nothing(prepared, run_quantized):
    expected = run_quantized(prepared, IMAGE)
    for mode in (True, True, False, True, False, False):
        prepared.train(mode)
        assert quantization_of(prepared).state == 'quantize'
    assert equal(run_quantized(prepared, IMAGE), expected)


def test_a_batch_of_two_is_two_batches_of_one(prepared, run_quantized):
    both = run_quantized(prepared, IMAGE)
    each = [run_quantized(prepared, IMAGE[i:i + 1]) for i in range(2)]
    one_step = [2e-2, 5e-3]  # an int8 step inside may flip with the order of a sum
    for output, first, second, bound in zip(both, *each, one_step, strict=True):
        torch.testing.assert_close(output, torch.cat([first, second]), atol=bound, rtol=0)


def test_int8_values_are_on_the_grid_of_their_scale(prepared, run_quantized):
    seen = {}
    quant = quantization_of(prepared)
    site = next(row for row in model_report(prepared) if row['site'] == 'backbone.relu/relu.0')
    quantizer = quant.quantizer(site['quantizer'])
    hook = quantizer.register_forward_hook(lambda m, i, o: seen.setdefault('value', o))
    run_quantized(prepared, IMAGE)
    hook.remove()
    q = seen['value'] / quantizer.scale
    torch.testing.assert_close(q, q.round(), atol=1e-3, rtol=0)
    assert 0 <= q.min() and q.max() <= 127


def test_preparing_twice_is_refused(prepared):
    with pytest.raises(BpuError, match='is prepared already'):
        prepare(prepared, SETTINGS)


def test_a_float_model_has_no_quantization(small_detector):
    with pytest.raises(BpuError, match='DeformableDETR is a float model; call prepare'):
        set_quant_state(small_detector(''), 'observe')


def test_quantization_is_found_through_wrappers(prepared):

    class Wrapper(nn.Module):

        def __init__(self, module):
            super().__init__()
            self.module = module

    assert quantization_of(Wrapper(Wrapper(prepared))) is prepared.quant


def test_calibration_without_images_is_an_error_that_names_a_site(small_detector):
    model = prepare(small_detector(''), SETTINGS)
    with pytest.raises(BpuError, match='image has seen no image: run calibration batches'):
        finish_calibration(model)
    with pytest.raises(BpuError, match='has no scale: the checkpoint is not calibrated'):
        export_networks(quantized_graphs(model))


def test_a_nan_activation_is_told_with_the_first_site(small_detector, run_quantized):
    model = prepare(small_detector(''), SETTINGS)
    set_quant_state(model, 'observe')
    image = IMAGE.clone()
    image[0, 0, 5, 5] = float('nan')
    run_quantized(model, image)
    with pytest.raises(BpuError, match='calibration found NaN first at image, and after it at'):
        finish_calibration(model)


def test_a_site_that_is_infinite_everywhere_is_told_as_such(small_detector):
    model = prepare(small_detector(''), SETTINGS)
    quantizer = next(iter(quantization_of(model).quantizers.values()))
    set_quant_state(model, 'observe')
    quantizer(torch.full((2, ), float('inf')))
    with pytest.raises(BpuError, match='every value of image was infinite in calibration'):
        finish_calibration(model)


def test_the_report_says_what_counts(prepared):
    rows = model_report(prepared)
    names = {row['quantizer'] for row in rows}
    assert names == {key.replace('|', '.') for key in quantization_of(prepared).quantizers}
    assert all(row['calibrated'] for row in rows if row['dtype'] != 'int32')
    assert all(row['scale'] > 0 for row in rows)


def test_a_prepared_detector_keeps_its_class_name_and_is_still_one(prepared):
    from mmdet.models import DeformableDETR
    assert isinstance(prepared, DeformableDETR)
    assert type(prepared).__name__ == 'DeformableDETR'


@pytest.mark.parametrize('conv_bias', [False, True])
@pytest.mark.parametrize('affine', [False, True])
def test_a_folded_batch_norm_is_in_the_convolution(conv_bias, affine):
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(3, 4, 3, bias=conv_bias), nn.BatchNorm2d(4, affine=affine, eps=1e-2)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.1, 3)
    if affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    norm.eval()
    x = torch.randn(2, 3, 5, 5)
    expected = norm(conv(x))
    fold_pair(conv, norm)
    torch.testing.assert_close(conv(x), expected)


def test_a_norm_whose_convolution_has_another_reader_is_not_folded(toy):
    model = toy(lambda self, x: self.norm(self.conv(x)) + self.conv_again(x),
                conv=nn.Conv2d(3, 3, 1), norm=nn.BatchNorm2d(3), conv_again=nn.Conv2d(3, 3, 1))
    assert fold_captured(model, capture_detector(model, (4, 4))) == [('conv', 'norm')]

    def shared(self, x):
        y = self.conv(x)
        return self.norm(y) + y

    model = toy(shared, conv=nn.Conv2d(3, 3, 1), norm=nn.BatchNorm2d(3))
    assert fold_captured(model, capture_detector(model, (4, 4))) == []


def test_a_convolution_called_twice_is_not_folded(toy):
    model = toy(lambda self, x: self.norm(self.conv(self.conv(x))),
                conv=nn.Conv2d(3, 3, 1), norm=nn.BatchNorm2d(3))
    assert fold_captured(model, capture_detector(model, (4, 4))) == []
