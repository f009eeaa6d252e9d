"""A ``.hbm`` whose hashes are valid is not trusted: what it says is checked before it is used."""
import json

import pytest

from mmdet_bpu.compiler.compile import write_hbm
from mmdet_bpu.errors import BpuError
from mmdet_bpu.executors.simulator import HbmSimulator
from mmdet_bpu.program.container import canonical_json, seal, unseal

FIELDS = ('march', 'producer', 'networks')


@pytest.fixture
def data(detector, tmp_path):
    path = tmp_path / 'model.hbm'
    write_hbm(detector, path, 'nash-e')
    return path.read_bytes()


def resealed(data, section, content):
    """The file with another text in one section and every hash valid."""
    header, sections = unseal(data)
    return seal({key: header[key] for key in FIELDS}, {**sections, section: content})


def changed(data, section, change):
    content = json.loads(unseal(data)[1][section])
    change(content['networks'][0] if section != 'metadata' else content)
    return resealed(data, section, canonical_json(content))


def first(network, op):
    return next(entry for entry in network['instructions'] if entry['op'] == f'bpu.{op}')


def value(name, **changes):
    return lambda network: network['values'][name].update(changes)


def refused(data, message):
    with pytest.raises(BpuError, match=message) as caught:
        HbmSimulator(data)
    assert 'deploy the model again' in str(caught.value) and len(str(caught.value)) < 1000


@pytest.mark.parametrize('text, message', [
    (b'[' * 500 + b']' * 500, 'nested'), (b'{"a":' * 100_000, 'nested'), (b'\xff', 'utf-8'),
    (b'[]', 'expected a table'), (b'3', 'expected a table'), (b'{"a": 1e999}', 'finite'),
    (b'{"a": NaN}', 'finite'), (b'{"a": ' + b'9' * 5000 + b'}', 'int64'),
    (b'{"a": "\\ud800"}', 'surrogates'), (b'{"a": 1, "a": 2}', 'twice'), (b'', 'Expecting')])
@pytest.mark.parametrize('section', ['program', 'memory', 'metadata', 'performance'])
def test_a_section_is_plain_json(data, section, text, message):
    refused(resealed(data, section, text), f"section '{section}' cannot be read .*{message}")


@pytest.mark.parametrize('change, message', [
    (value('image', dtype='f32'), "value 'image': expected elements of .*found 'f32'"),
    (value('image', dtype=['si8']), "'dtype'"), (value('image', scale=-1.0), 'scale'),
    (value('image', scale='0.1'), "'scale'"), (value('image', shape=[1, 16, 16.0, 3]), "'shape'"),
    (value('image', shape=[1, 16, -16, 3]), "'shape'"), (value('image', shape=[1] * 64), "'shape'"),
    (value('image', shape=[1 << 40]), "'shape'"), (value('image', shape=16), "'shape'"),
    (value('image', shape=[1, 16, 16, 4]), 'input has 4 channels'),
    (value('image', more=1), "unknown field 'more'"),
    (value('c1', shape=[8, 3, 3, 4]), 'its data'), (value('c1', dtype='si16'), 'its data'),
    (value('c1', data=['int8', [8, 3, 3, 3], 1 << 40]), 'leaves the weights section'),
    (value('c1', data=['int8', [8, 3, 3, 3], 1]), 'multiple of 64'),
    (value('c1', data=['object', [8, 3, 3, 3], 0]), 'its data'),
    (value('c1', data='c1'), "'data'"),
    (lambda n: n['inputs'].append('image'), 'more than once'),
    (lambda n: n['inputs'].append(['image']), "'inputs'"),
    (lambda n: n['outputs'].append('ghost'), "no place for the output 'ghost'"),
    (lambda n: n['values'].pop('image'), "no place for 'image'"),
    (lambda n: first(n, 'conv2d')['inputs'].pop(), 'expected 3 to 4 operands, found 2'),
    (lambda n: first(n, 'conv2d')['inputs'].reverse(), 'expected a tensor of'),
    (lambda n: first(n, 'conv2d')['attrs'].pop('stride'), 'expected the attribute stride'),
    (lambda n: first(n, 'conv2d')['attrs'].update(stride=[0, 0]), 'stride 0'),
    (lambda n: first(n, 'conv2d')['attrs'].update(stride='11'), 'expected ints'),
    (lambda n: first(n, 'conv2d')['attrs'].update(groups=0), '0 groups'),
    (lambda n: first(n, 'conv2d')['attrs'].update(groups=True), 'expected i64'),
    (lambda n: first(n, 'conv2d')['attrs'].update(shift={'array': ['int64', [1 << 30], 0]}),
     'leaves the weights section'),
    (lambda n: first(n, 'conv2d')['attrs'].update(shift={'array': ['int8', [8], 0]}),
     'expected ints'),
    (lambda n: first(n, 'conv2d')['attrs'].update(shift={'list': []}), "unknown field 'list'"),
    (lambda n: first(n, 'reshape')['attrs'].update(shape=[-1, 256, 16]), 'cannot reshape'),
    (lambda n: first(n, 'conv2d').update(op='bpu.relu'), 'operands, found'),
    (lambda n: n.update(instructions={}), "'instructions'"),
])
def test_a_program_is_checked(data, change, message):
    refused(changed(data, 'program', change), f"section 'program'.*{message}")


def test_a_weight_is_a_constant(data):
    def computed(network):
        entry = network['values']['c1']
        del entry['data']
        network['inputs'].append('c1')

    def place(network):
        buffers = network['buffers']
        end = network['arena_bytes']
        buffers['c1'] = dict(offset=end, nbytes=216, first=0, last=1)
        network['arena_bytes'] = end + 256

    with pytest.raises(BpuError, match='expected a constant as operand 1'):
        HbmSimulator(changed(changed(data, 'program', computed), 'memory', place))


@pytest.mark.parametrize('change, message', [
    (lambda n: n.update(arena_bytes=1 << 40), 'larger than all of its buffers'),
    (lambda n: n.update(arena_bytes=-64), "'arena_bytes'"),
    (lambda n: n.update(arena_bytes=4096.0), "'arena_bytes'"),
    (lambda n: n['buffers']['image'].update(offset=1 << 60), 'does not fit the arena'),
    (lambda n: n['buffers']['image'].update(offset=-64), "'offset'"),
    (lambda n: n['buffers']['image'].update(offset=1), 'does not fit the arena'),
    (lambda n: n['buffers']['image'].update(nbytes=767), 'its buffer has 767'),
    (lambda n: n['buffers']['image'].update(last=1 << 20), 'lives from step'),
    (lambda n: n['buffers'].pop('image'), "no place for 'image'"),
    (lambda n: n['buffers'].update(ghost=n['buffers']['image']), 'no activation'),
])
def test_a_memory_plan_is_of_its_program(data, change, message):
    refused(changed(data, 'memory', change), f"section 'memory'.*{message}")


@pytest.mark.parametrize('change, message', [
    (lambda h: h.pop('sections'), 'a list of 5 sections'),
    (lambda h: h['sections'][0].update(offset=-64), 'at byte 0'),
    (lambda h: h['sections'][1].update(offset=1e300), 'at byte'),
    (lambda h: h['sections'][1].update(nbytes='12'), 'no length'),
    (lambda h: h['sections'][1].update(nbytes=-1), 'no length'),
    (lambda h: h['sections'].reverse(), 'at byte 0'),
    (lambda h: h['sections'][0].pop('sha256'), 'sha256'),
    (lambda h: h['sections'].append(h['sections'][0]), 'a list of 5 sections')])
def test_the_section_table_is_what_a_writer_makes(data, change, message):
    from hashlib import sha256
    header, _ = unseal(data)
    version = header.pop('format_version')
    start = 52 + len(canonical_json(header))
    change(header)
    raw = canonical_json(header)
    front = data[:8] + version.to_bytes(4, 'little') + len(raw).to_bytes(8, 'little') \
        + sha256(raw).digest() + raw
    refused(front + bytes(-len(front) % 64) + data[start + -start % 64:],
            f'the header cannot be read .*{message}')
