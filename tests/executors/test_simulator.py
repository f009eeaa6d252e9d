"""The simulator runs what the file says, and only that: a wrong file gives wrong numbers."""
import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from mmdet_bpu.program.container import canonical_json, seal, unseal
from mmdet_bpu.program.hbm_file import read_hbm
from mmdet_bpu.compiler.compile import write_hbm
from mmdet_bpu.executors.simulator import HbmSimulator
from mmdet_bpu.errors import BpuError
from mmdet_bpu.hbir.builder import OpBuilder
from mmdet_bpu.executors.interpreter import Interpreter
from mmdet_bpu.kernels.registry import KERNELS
from mmdet_bpu.program.dtypes import TORCH_DTYPES
from mmdet_bpu.hbir.integer_program import program_from_module
from mmdet_bpu.hbir.types import tensor_type

FIELDS = ('march', 'producer', 'networks')


def run_plainly(program, inputs):
    """Every value in a tensor of its own, instructions in the program's order."""
    values = {name: torch.from_numpy(value.data.copy())
              for name, value in program.values.items() if value.data is not None}
    values.update(inputs)
    for instruction in program.instructions:
        types = [program.values[name].type.dtype for name in instruction.outputs]
        results = KERNELS[instruction.op]([values[name] for name in instruction.inputs],
                                          {**instruction.attrs, 'out_dtypes': types})
        values.update(zip(instruction.outputs, results))
    return {name: values[name] for name in program.outputs}


def random_inputs(program, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randint(-100, 100, program.values[name].type.shape, generator=generator
                                ).to(TORCH_DTYPES[program.values[name].type.dtype])
            for name in program.inputs}


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def resealed(data, section, change):
    """The file with its network's entry in one section changed and every hash valid."""
    header, sections = unseal(data)
    content = json.loads(sections[section])
    change(content['networks'][0])
    fields = {key: header[key] for key in FIELDS}
    return seal(fields, {**sections, section: canonical_json(content)})


@pytest.fixture
def data(detector, tmp_path):
    path = tmp_path / 'model.hbm'
    write_hbm(detector, path, 'nash-e')
    return path.read_bytes()


def test_outputs_equal_the_plain_program_bit_for_bit(detector, data):
    simulator = HbmSimulator(data)
    for seed in range(3):
        inputs = random_inputs(detector, seed)
        outputs = simulator.run(inputs)
        assert same(outputs, run_plainly(detector, inputs))
        assert len(torch.unique(outputs[detector.outputs[0]])) > 50


def test_outputs_equal_the_interpreter_of_the_module_bit_for_bit(tmp_path):
    """From an xDSL module: table, sampling, reduction, top-k, gather, slice, concat."""
    builder = OpBuilder([('feature', tensor_type((2, 9, 7, 8), 'si8', 0.1)),
                         ('grid', tensor_type((2, 5, 4, 2), 'si16', 2**-15))], dialect='bpu')
    feature, grid = builder.inputs
    si8 = [tensor_type((2, 5, 4, 8), 'si8', 0.1), tensor_type((2, 5, 1, 8), 'si8', 0.1)]
    rate = dict(multiplier=[16384], shift=[16])
    sampled = builder.op('bpu.grid_sample', [feature, grid], dict(
        x_multiplier=[28672], x_shift=[22], x_offset=384, y_multiplier=[18432], y_shift=[21],
        y_offset=512, fraction_bits=7, padding='zeros'), si8[0], site='attn/grid_sample.0')
    curved = builder.op('bpu.table', [sampled], dict(
        entries=[abs(index - 128) // 2 for index in range(256)]), si8[0])
    mean = builder.op('bpu.reduce_sum', [curved], dict(dims=[2], **rate), si8[1])
    flat = builder.op('bpu.reshape', [mean], dict(shape=[2, 40]), tensor_type((2, 40), 'si8', 0.1))
    values, indices = builder.op('bpu.topk', [flat], dict(k=6, dim=1), [
        tensor_type((2, 6), 'si8', 0.1), tensor_type((2, 6), 'si32')])
    picked = builder.op('bpu.gather', [flat, indices], dict(dim=1),
                        tensor_type((2, 6), 'si8', 0.1))
    head = builder.op('bpu.slice', [flat], dict(begin=[0, 3], end=[2, 39], step=[1, 2]),
                      tensor_type((2, 18), 'si8', 0.1))
    joined = builder.op('bpu.concat', [values, picked, head], dict(dim=1),
                        tensor_type((2, 30), 'si8', 0.1))
    module = builder.finish([('joined', joined), ('indices', indices)], {'scale': 0.1})
    program = program_from_module(module)
    write_hbm(program, tmp_path / 'model.hbm', 'nash-e')
    simulator = HbmSimulator(tmp_path / 'model.hbm')
    for seed in range(3):
        inputs = random_inputs(program, seed)
        inputs['grid'] = inputs['grid'] * 300
        outputs = simulator.run(inputs)
        assert same(outputs, Interpreter(program_from_module(module)).run(inputs))
        assert len(torch.unique(outputs['joined'])) > 5
    assert simulator.inputs == Interpreter(program_from_module(module)).inputs
    assert simulator.metadata == {'scale': 0.1}


def test_an_output_is_not_changed_by_the_next_run(detector, data):
    simulator = HbmSimulator(data)
    first = simulator.run(random_inputs(detector, 0))
    kept = {name: tensor.clone() for name, tensor in first.items()}
    simulator.run(random_inputs(detector, 1))
    assert same(first, kept)


def test_resealing_alone_changes_nothing(data):
    assert resealed(data, 'memory', lambda content: None) == data


def test_an_overlapping_buffer_changes_the_outputs(detector, data):
    names = [name for name in detector.values if name.startswith('v')]
    stem, inner = names[0], names[1]

    def overlap(content):
        # The stem is still needed by the shortcut when the next convolution writes.
        content['buffers'][inner]['offset'] = content['buffers'][stem]['offset']

    inputs = random_inputs(detector)
    broken = HbmSimulator(resealed(data, 'memory', overlap))
    assert not same(broken.run(inputs), HbmSimulator(data).run(inputs))


def test_a_swapped_pair_of_instructions_changes_the_outputs(detector, data):
    def swap(content):
        instructions = content['instructions']
        instructions[1], instructions[2] = instructions[2], instructions[1]

    inputs = random_inputs(detector)
    broken = HbmSimulator(resealed(data, 'program', swap))
    expected = HbmSimulator(data).run(inputs)
    for _ in range(2):  # Nor does a second run find what the first one left behind.
        assert not same(broken.run(inputs), expected)


def test_a_changed_weight_changes_the_outputs(detector, data):
    header, sections = unseal(data)
    weights = bytearray(sections['weights'])
    weights[0] ^= 0x40
    fields = {key: header[key] for key in FIELDS}
    broken = HbmSimulator(seal(fields, {**sections, 'weights': bytes(weights)}))
    inputs = random_inputs(detector)
    assert not same(broken.run(inputs), HbmSimulator(data).run(inputs))


def test_equal_programs_give_equal_files(detector, data, tmp_path):
    write_hbm(detector, tmp_path / 'again.hbm', 'nash-e')
    assert (tmp_path / 'again.hbm').read_bytes() == data


def test_the_file_alone_is_enough_in_a_new_process(detector, data, tmp_path):
    (tmp_path / 'model.hbm').write_bytes(data)
    inputs = random_inputs(detector)
    torch.save(inputs, tmp_path / 'inputs.pt')
    code = ('import sys, torch\n'
            'from mmdet_bpu.executors.simulator import HbmSimulator\n'
            'inputs = torch.load(sys.argv[2], weights_only=True)\n'
            'torch.save(HbmSimulator(sys.argv[1]).run(inputs), sys.argv[3])\n')
    subprocess.run([sys.executable, '-c', code, tmp_path / 'model.hbm', tmp_path / 'inputs.pt',
                    tmp_path / 'outputs.pt'], check=True)
    outputs = torch.load(tmp_path / 'outputs.pt', weights_only=True)
    assert same(outputs, run_plainly(detector, inputs))


def test_specs_and_metadata_come_from_the_file(detector, data):
    simulator = HbmSimulator(data)
    spec = simulator.inputs[0]
    assert (spec.name, spec.shape, spec.dtype) == ('image', (1, 16, 16, 3), 'si8')
    assert spec.scale == pytest.approx(0.05)
    assert [spec.dtype for spec in simulator.outputs] == ['si32', 'si16']
    assert simulator.metadata == detector.metadata
    assert 'not on a board' in simulator.notice


def test_wrong_inputs_are_named(detector, data):
    simulator = HbmSimulator(data)
    with pytest.raises(BpuError, match=r"expected the inputs \['image'\]"):
        simulator.run({'picture': torch.zeros(1)})
    with pytest.raises(BpuError, match=r'expected si8 of shape \(1, 16, 16, 3\)'):
        simulator.run({'image': torch.zeros(1, 16, 16, 3)})


@pytest.mark.parametrize('section, change, message', [
    ('memory', lambda c: c['buffers'].popitem(), "section 'memory'"),
    ('memory', lambda c: c.update(arena_bytes=64), "section 'memory'"),
    ('memory', lambda c: c.pop('buffers'), "section 'memory' cannot be read"),
    ('program', lambda c: c['instructions'][0].update(op='bpu.magic'),
     "no integer kernel for 'bpu.magic'"),
    ('program', lambda c: c['instructions'][0].pop('inputs'), "section 'program' cannot be read"),
    ('program', lambda c: c['values'].popitem(), 'no place for'),
])
def test_a_file_with_valid_hashes_but_nonsense_inside_is_refused(data, section, change, message):
    with pytest.raises(BpuError, match=message):
        HbmSimulator(resealed(data, section, change))


def test_arrays_keep_their_type_and_equal_ones_are_stored_once(maker, tmp_path):
    x = maker.input('x', (1, 4, 4, 2))
    weight = np.arange(36, dtype=np.int8).reshape(2, 3, 3, 2)
    attrs = dict(stride=[1, 1], pad=[1] * 4, dilation=[1, 1], groups=1, relu=False,
                 multiplier=np.array([16384], np.int64), shift=np.array([20], np.int64))
    for _ in range(2):
        x = maker.op('conv2d', [x, maker.constant(weight.copy()),
                                maker.constant(np.zeros(2, np.int32))], (1, 4, 4, 2), **attrs)
    write_hbm(maker.finish(x), tmp_path / 'model.hbm', 'nash-e')
    file = read_hbm(tmp_path / 'model.hbm')
    back = file.networks[0].program
    constants = [value.data for value in back.values.values() if value.data is not None]
    assert np.array_equal(constants[0], weight) and constants[0].dtype == np.int8
    assert back.instructions[0].attrs['multiplier'].dtype == np.int64
    sizes = {entry['name']: entry['nbytes'] for entry in file.header['sections']}
    assert sizes['weights'] == 4 * 64  # weight, bias, multiplier, shift; each once


def test_a_mask_and_indices_survive_the_file(maker, tmp_path):
    x = maker.input('x', (1, 6, 2), 'si16')
    mask = maker.constant(np.array([[[True], [False], [False], [True], [False], [False]]]))
    masked = maker.op('where', [mask, x], (1, 6, 2), 'si16', fill=-7)
    indices = maker.constant(np.array([[[5, 5], [0, 1]]], np.int32))
    out = maker.op('gather', [masked, indices], (1, 2, 2), 'si16', dim=1)
    program = maker.finish(out)
    write_hbm(program, tmp_path / 'model.hbm', 'nash-e')
    inputs = random_inputs(program)
    outputs = HbmSimulator(tmp_path / 'model.hbm').run(inputs)
    assert same(outputs, run_plainly(program, inputs))
    assert outputs[out][0, 1, 0] == -7
