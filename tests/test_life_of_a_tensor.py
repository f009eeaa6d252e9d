"""What docs/tensor.md tells, step by step, and that the files it names are there."""
import re
from pathlib import Path

import torch
from torch import nn

from mmdet_bpu.compiler.compile import write_hbm
from mmdet_bpu.executors import HbmSimulator
from mmdet_bpu.graph.deploy_graph import capture_detector
from mmdet_bpu.graph.quantized_graph import Role
from mmdet_bpu.hbir.builder import operations
from mmdet_bpu.hbir.integer_program import program_from_module
from mmdet_bpu.hbir.passes import convert
from mmdet_bpu.lowering.export import export_networks
from mmdet_bpu.quantization import prepare, quantized_graphs
from tests.stock_detectors import calibrated, toy  # noqa: F401  (fixtures)

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = (ROOT / 'docs' / 'tensor.md').read_text(encoding='utf-8')
SHAPE = (8, 8)


def test_the_files_it_names_exist():
    named = re.findall(r'`((?:[a-z_]+/)+[a-z_]+\.py)`', DOCUMENT)
    assert len(named) > 12
    for name in named:
        assert any((root / name).is_file() for root in (ROOT, ROOT / 'mmdet_bpu')), name


def test_three_calls_become_one_instruction(toy, calibrated, tmp_path):  # noqa: F811
    def body(self, image):
        return self.last(torch.relu(self.norm(self.conv(image))))

    def modules():
        torch.manual_seed(0)
        return dict(conv=nn.Conv2d(3, 4, 3, padding=1, bias=False), norm=nn.BatchNorm2d(4),
                    last=nn.Conv2d(4, 2, 3, padding=1))

    captured = capture_detector(toy(body, **modules()), SHAPE)
    assert captured.sites()[:3] == ['conv/conv2d.0', 'norm/batch_norm.0', '/relu.0']
    model = prepare(toy(body, **modules()), dict(input_shape=SHAPE))
    network, = model.quant.networks
    assert [op.kind for op in network.graph.ops] == ['conv2d', 'relu', 'conv2d']
    first, relu, _ = (op.output for op in network.graph.ops)
    assert network.placement.kinds[first] is Role.FUSED
    assert network.placement.kinds[relu] is Role.OWN and network.config(relu).dtype == 'int8'
    assert 'quant.quantizers./relu|0.scale' in model.state_dict()
    plans = [plan for plan in model.quant.plan.values() if plan.output == '/relu.0']
    assert len(plans) == 1

    calibrated(model, torch.randn(1, 3, *SHAPE))
    networks = quantized_graphs(model)
    hbir = export_networks(networks)
    names = [op.name for op in operations(hbir)]
    assert names.count('hbir.conv2d') == 2 and names.count('hbir.relu') == 1
    program = program_from_module(convert(hbir)[0])
    convolution = program.instructions[0]
    assert convolution.op == 'bpu.conv2d' and convolution.attrs['relu'] is True
    assert len(convolution.attrs['multiplier']) == 4
    file = write_hbm(program, tmp_path / 'model.hbm', 'nash-e')
    assert file is not None
    simulator = HbmSimulator(tmp_path / 'model.hbm')
    levels = torch.randint(-128, 128, (1, *SHAPE, 3), dtype=torch.int8)
    outputs = simulator.run({simulator.inputs[0].name: levels})
    assert {tuple(value.shape) for value in outputs.values()} == {(1, 2, *SHAPE)}
