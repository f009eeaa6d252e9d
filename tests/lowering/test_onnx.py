"""The ONNX form: the float model's numbers, QAT's integers, and files that other tools take."""
import numpy as np
import pytest
import torch
from torch import nn

from mmdet_bpu.errors import BpuError
from mmdet_bpu.graph.deploy_graph import deploy_graph
from mmdet_bpu.program.kinds import KINDS
from mmdet_bpu.quantization import prepare, quantized_graphs
from tests.graph.test_canonical import SPELLINGS
from tests.graph.test_canonical_movement import MOVEMENT
from tests.stock_detectors import TOY_IMAGE, TOY_SHAPE

onnx = pytest.importorskip('onnx', reason='onnx is not installed')
onnxruntime = pytest.importorskip('onnxruntime', reason='onnxruntime is not installed')

from mmdet_bpu.analysis.onnx_nodes import OnnxNodes  # noqa: E402
from mmdet_bpu.analysis.qat_roundings import QatRoundings, compare  # noqa: E402
from mmdet_bpu.graph.quantized_graph import Placement, QuantizedGraph  # noqa: E402
from mmdet_bpu.lowering.onnx_form.files import OnnxNetwork, write_model  # noqa: E402
from mmdet_bpu.lowering.onnx_form.model import CONTRACT, model_of  # noqa: E402
from mmdet_bpu.lowering.onnx_form.rules import FORMS  # noqa: E402

BODIES = {**SPELLINGS, **MOVEMENT}
UNKNOWN_TO_THE_RUNTIME = [name for name in BODIES if name.startswith('deformable conv')]


def seeded(name):
    """``body(detector, image)`` of an entry, whose constants are drawn from one seed."""

    def body(detector, image):
        torch.manual_seed(0)
        return BODIES[name](image)

    return body


def run(model, image):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return session.run(None, {session.get_inputs()[0].name: image.numpy()})


@pytest.mark.parametrize('name', [name for name in BODIES if name not in UNKNOWN_TO_THE_RUNTIME])
def test_a_float_export_computes_what_torch_does(name, toy):
    model = toy(seeded(name))
    _, graph = deploy_graph(model, TOY_SHAPE)
    exported = model_of(QuantizedGraph(graph, Placement(), {}), as_float=True)
    onnx.checker.check_model(exported, full_check=True)
    with torch.no_grad():
        expected = model(TOY_IMAGE)
    found, = run(exported, TOY_IMAGE)
    np.testing.assert_allclose(found, expected.numpy(), atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize('name', [name for name in BODIES if name not in UNKNOWN_TO_THE_RUNTIME])
def test_each_rounding_gives_qat_s_integers(name, toy, calibrated):
    model = calibrated(prepare(toy(seeded(name)), dict(input_shape=TOY_SHAPE)), TOY_IMAGE)
    network, = quantized_graphs(model)
    onnx.checker.check_model(model_of(network), full_check=True)
    qat = QatRoundings(network)
    found = compare(dict(onnx=OnnxNodes(network).fed), qat, [TOY_IMAGE, TOY_IMAGE * 3])['onnx']
    assert sum(node.elements for node in found.nodes.values()) >= TOY_IMAGE.numel()
    assert max(node.largest for node in found.nodes.values()) <= 1
    for node in found.nodes.values():  # bilinear halves are ties
        assert node.differing <= 1 + 0.15 * node.elements * ('bilinear' in name), node
    assert found.largest_output() <= 1e-5


@pytest.mark.parametrize('name', UNKNOWN_TO_THE_RUNTIME)
def test_what_the_runtime_does_not_know_is_valid_onnx(name, toy, calibrated):
    model = calibrated(prepare(toy(seeded(name)), dict(input_shape=TOY_SHAPE)), TOY_IMAGE)
    exported = model_of(quantized_graphs(model)[0])
    onnx.checker.check_model(exported, full_check=True)
    assert 'DeformConv' in {node.op_type for node in exported.graph.node}


def test_every_kind_has_a_form():
    import mmdet_bpu.lowering.onnx_form.model  # noqa: F401
    assert set(FORMS) == set(KINDS)


@pytest.fixture
def network(toy, calibrated):
    """A convolution with wide outputs and int16 in it, with scales."""
    torch.manual_seed(1)
    model = toy(lambda d, image: d.last(d.first(image).relu().flatten(2).transpose(1, 2)),
                first=nn.Conv2d(3, 4, 3, padding=1), last=nn.Linear(4, 5))
    settings = dict(input_shape=TOY_SHAPE, qconfig=[dict(site='*relu*', dtype='int16')])
    return quantized_graphs(calibrated(prepare(model, settings), TOY_IMAGE))[0]


def test_weights_are_integers_per_channel_and_names_are_those_of_the_sites(network):
    model = model_of(network)
    tensors = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    weights = tensors['first/conv2d.0/weight/integers']
    assert weights.dtype == np.int8 and np.abs(weights).reshape(4, -1).max(1).tolist() == [127] * 4
    assert tensors['first/conv2d.0/weight/scale'].shape == (4, )
    assert tensors['first/conv2d.0/bias/integers'].dtype == np.int32
    quantizers = {node.input[0]: tensors[node.input[2]].dtype for node in model.graph.node
                  if node.op_type == 'QuantizeLinear'}
    assert {name: str(dtype) for name, dtype in quantizers.items()} == {
        'image': 'int8', '/relu.0': 'int16'}
    assert model.opset_import[0].version == 21
    assert all(size.dim_value > 0 for each in (*model.graph.input, *model.graph.output)
               for size in each.type.tensor_type.shape.dim)


def test_a_file_is_an_executable_fed_with_integers(network, tmp_path):
    path = tmp_path / 'model.onnx'
    write_model(network, path, dict(version=3))
    executable = OnnxNetwork(path)
    assert executable.metadata == dict(version=3)
    spec, = executable.inputs
    assert spec.shape == (1, *TOY_SHAPE, 3) and spec.dtype == 'si8'
    levels = torch.randint(-128, 128, spec.shape, dtype=torch.int8)
    found = executable.run({spec.name: levels})
    image = (levels.float() * spec.scale).permute(0, 3, 1, 2)
    expected, = run(onnx.load(path), image)
    name = executable.outputs[0].name
    assert executable.outputs[0].scale == 1.0 and found[name].shape == executable.outputs[0].shape
    np.testing.assert_allclose(found[name].numpy(), expected, atol=0.02 * np.abs(expected).max())
    with pytest.raises(BpuError, match='expected si8'):
        executable.run({spec.name: levels.float()})


def test_bad_files_are_refused(network, tmp_path):
    path = tmp_path / 'model.onnx'
    write_model(network, path, dict(version=3), as_float=True)
    with pytest.raises(BpuError, match='expected a model whose image is quantized, found a float one'):
        OnnxNetwork(path)
    onnx.save(model_of(network), str(path))
    with pytest.raises(BpuError, match='with a deployment contract'):
        OnnxNetwork(path)
    whole = model_of(network, {}).SerializeToString()
    for content in (b'', b'nothing', whole[:len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(BpuError, match='model.onnx'):
            OnnxNetwork(path)


def test_large_tensors_lie_beside_the_model(network, tmp_path, monkeypatch):
    from mmdet_bpu.lowering.onnx_form import files
    monkeypatch.setattr(files, 'LARGEST_MESSAGE', 100)
    monkeypatch.setattr(files, 'EXTERNAL', 100)
    path = tmp_path / 'model.onnx'
    write_model(network, path, dict(version=3))
    assert (tmp_path / 'model.onnx.data').stat().st_size >= 108
    levels = torch.ones(1, *TOY_SHAPE, 3, dtype=torch.int8)
    beside = OnnxNetwork(path).run({'image': levels})
    whole = tmp_path / 'whole.onnx'
    monkeypatch.undo()
    write_model(network, whole, dict(version=3))
    assert CONTRACT in {entry.key for entry in onnx.load(whole).metadata_props}
    assert all(torch.equal(tensor, beside[name])
               for name, tensor in OnnxNetwork(whole).run({'image': levels}).items())
