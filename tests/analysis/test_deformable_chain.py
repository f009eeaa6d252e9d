"""A ResNet with deformable stages from float to the simulator."""
import pytest
import torch

import mmdet_bpu.openmmlab  # noqa: F401  (stands in for mmcv._ext before mmdet is imported)
from mmdet.models.backbones import ResNet  # isort: skip

from mmdet_bpu.analysis.qat_vs_int import compare_qat_int
from mmdet_bpu.compiler.compile import write_hbm
from mmdet_bpu.executors.interpreter import Interpreter
from mmdet_bpu.executors.simulator import HbmSimulator
from mmdet_bpu.hbir.integer_program import program_from_module
from mmdet_bpu.hbir.passes import convert
from mmdet_bpu.hbir.reference import FloatReference
from mmdet_bpu.hbir.text import parse_text, print_text
from mmdet_bpu.lowering.export import export_networks
from mmdet_bpu.quantization import quantized_graphs
from mmdet_bpu.quantization import prepare
from tests.stock_detectors import calibrated, toy  # noqa: F401

SHAPE = (32, 48)
IMAGE = torch.randn(1, 3, *SHAPE, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def resnet(toy, calibrated):  # noqa: F811
    """Function (conv type) -> fake-quantized HBIR of two thin stages, one of them deformable."""

    def build(conv_type):
        torch.manual_seed(0)
        backbone = ResNet(
            50, base_channels=4, stem_channels=4, num_stages=2, strides=(1, 2), dilations=(1, 1),
            out_indices=(0, 1), norm_eval=True, stage_with_dcn=(False, True),
            dcn=dict(type=conv_type, deform_groups=1, fallback_on_stride=False))
        for name, module in backbone.named_modules():
            if name.endswith('conv_offset'):
                module.weight.data.normal_(std=0.2)
            elif isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(std=0.2)
                module.running_var.uniform_(0.5, 2)
        model = toy(lambda self, x: self.backbone(x), backbone=backbone)
        with torch.no_grad():
            prepare(model, dict(input_shape=SHAPE, calibration=dict(observer='minmax')))
            return export_networks(quantized_graphs(calibrated(model, IMAGE))), model(IMAGE)

    return build


@pytest.mark.parametrize('conv_type', ['DCN', 'DCNv2'])
def test_a_deformable_backbone_goes_all_the_way(resnet, conv_type, tmp_path):
    hbir, outputs = resnet(conv_type)
    image = IMAGE.permute(0, 2, 3, 1).contiguous()
    integer, _ = convert(hbir)
    for text in (print_text(hbir), print_text(integer)):
        assert print_text(parse_text(text)) == text
    found = FloatReference(hbir).run({'image': image})
    for value, expected in zip(found.values(), outputs, strict=True):
        # Where a sum lies between two steps, QAT's order of additions may take the other one.
        scale = expected.abs().max()
        assert ((value - expected).abs() > 0.01 * scale).double().mean() < 0.02
    result = compare_qat_int(hbir, image)
    deformable = [row for row in result['ops'] if row['kind'] == 'deform_conv2d']
    assert len(deformable) == 4
    assert {(row['dtype'], row['max_lsb'] <= 1) for row in deformable} == {('si8', True)}
    assert result['by_kind']['deform_conv2d si8']['differing_share'] < 0.005
    program = program_from_module(integer)
    write_hbm(program, tmp_path / 'model.hbm', 'nash-e')
    interpreter, simulator = Interpreter(program), HbmSimulator(tmp_path / 'model.hbm')
    spec = interpreter.inputs[0]
    integers = {spec.name: torch.randint(-128, 128, spec.shape).to(torch.int8)}
    expected, simulated = interpreter.run(integers), simulator.run(integers)
    assert all(torch.equal(expected[name], simulated[name]) for name in expected)
