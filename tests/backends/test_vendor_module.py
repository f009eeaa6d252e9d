"""The vendor's quantized network as an executable, against a stand-in that computes."""
import pytest
import torch

from mmdet_bpu.backends.vendor_module import VendorModule
from mmdet_bpu.errors import BpuError
from mmdet_bpu.executors.interpreter import Interpreter
from mmdet_bpu.executors.protocol import Executable
from mmdet_bpu.hbir.builder import OpBuilder
from mmdet_bpu.hbir.integer_program import program_from_module
from mmdet_bpu.hbir.passes import convert
from mmdet_bpu.hbir.text import print_text
from mmdet_bpu.hbir.types import tensor_type
from tests.vendor_stand_in import COMPUTING, installed

LEVELS = torch.randint(-128, 128, (1, 4, 4, 3), dtype=torch.int8,
                       generator=torch.Generator().manual_seed(0))


@pytest.fixture
def vendor(tmp_path):
    with installed(tmp_path / 'site', COMPUTING) as compiler:
        yield compiler


@pytest.fixture(scope='module')
def network():
    """Text of a linear layer with a rounded and a wide output, and its integers."""
    b = OpBuilder([('image', tensor_type((1, 4, 4, 3), 'f32'))])
    x = b.fake_quant(b.inputs[0], bits=8, scale=0.05, site='image')
    outputs = []
    for name, rounded in (('scores', False), ('boxes', True)):
        weight = torch.randn(5, 3, generator=torch.Generator().manual_seed(1)).numpy()
        w = b.fake_quant(b.constant(weight, site=name), 8, abs(weight).max(1) / 127, 0, site=name)
        y = b.op('hbir.linear', [x, w, None], {}, tensor_type((1, 4, 4, 5), 'f32'), site=name)
        outputs.append((name, b.fake_quant(y, bits=16, scale=1e-3, site=name) if rounded else y))
    module = b.finish(outputs)
    integers = Interpreter(program_from_module(convert(module)[0]))
    return print_text(module), integers


def module_of(network, text=None, **changed):
    return VendorModule(text or network[0], 'nash-e', changed.get('inputs', network[1].inputs),
                        changed.get('outputs', network[1].outputs), dict(classes=['a']))


def test_it_is_an_executable_of_one_network_made_for_the_march(vendor, network):
    module = module_of(network)
    assert isinstance(module, Executable) and module.networks == [module]
    assert vendor.MARCHES == ['nash-e'] and module.metadata == dict(classes=['a'])


def test_float_inputs_are_what_the_integers_stand_for_and_float_outputs_are_rounded(vendor, network):
    found = module_of(network).run({'image': LEVELS})
    expected = network[1].run({'image': LEVELS})
    assert {name: x.dtype for name, x in found.items()} == {
        name: x.dtype for name, x in expected.items()}
    assert (found['boxes'] - expected['boxes']).abs().max() <= 1
    # Our 15-bit multiplier is up to 2**-15 of the result off, the stand-in's float32 is not.
    scores, right = (each['scores'].double() for each in (found, expected))
    assert (scores - right).abs().max() < 2**-15 * right.abs().max()


def test_integer_inputs_and_outputs_go_through_as_they_are(vendor, network):
    vendor.INTEGERS = True
    found, expected = (each.run({'image': LEVELS}) for each in (module_of(network), network[1]))
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_an_integer_type_that_is_not_ours_is_refused(vendor, network):
    vendor.INTEGERS = True
    module = module_of(network)
    feed = module.function.feed
    module.function.feed = lambda inputs: {n: x.astype('int64') for n, x in feed(inputs).items()}
    with pytest.raises(BpuError, match='expected its output scores as int32 or float, found int64'):
        module.run({'image': LEVELS})


def test_a_network_with_other_inputs_is_refused(vendor, network):
    spec = network[1].inputs[0]
    other = type(spec)(spec.name, (1, 8, 8, 3), spec.dtype, spec.scale)
    with pytest.raises(BpuError, match=r'expected image \(1, 8, 8, 3\) among the inputs .* found image '
                                       r'\(1, 4, 4, 3\)'):
        module_of(network, inputs=[other])


def test_what_the_package_raises_is_an_error_with_its_words(vendor, network):
    module = module_of(network)

    def feed(inputs):
        raise RuntimeError('no such kernel')

    module.function.feed = feed
    with pytest.raises(BpuError, match='could not run its network: RuntimeError: no such kernel'):
        module.run({'image': LEVELS})
    module.function.feed = lambda inputs: {'scores': 0}
    with pytest.raises(BpuError, match='its network gave no boxes, only scores'):
        module.run({'image': LEVELS})


def test_a_module_of_no_function_is_refused(vendor, network):
    vendor.convert = lambda m, march: m
    with pytest.raises(BpuError, match='expected one function to feed .* found 0'):
        module_of(network)


def test_without_the_package_it_says_so(network):
    with pytest.raises(BpuError, match='the package hbdk4 is not installed here'):
        module_of(network)
