"""A checkpoint is held against its own length before anything of it is allocated."""
import io
import pickle
import struct
import zipfile
from collections import OrderedDict

import pytest
import torch

from mmdet_bpu.engine.checkpoint_scan import STREAM_MAGIC, scan_checkpoint
from mmdet_bpu.engine.weights import read_checkpoint
from mmdet_bpu.errors import BpuError

GLOBAL_TENSOR = b'ctorch._utils\n_rebuild_tensor_v2\n'


def text(value):
    return b'X' + struct.pack('<I', len(value)) + value.encode()


def storage(key, numel):
    """Pickled persistent reference to a float storage."""
    return (b'(' + text('storage') + b'ctorch\nFloatStorage\n' + text(key) + text('cpu')
            + b'I' + str(numel).encode() + b'\n' + b'tQ')


def tensor(key, numel, size, stride):
    return (GLOBAL_TENSOR + b'(' + storage(key, numel) + b'I0\n'
            + b'I' + str(size).encode() + b'\n\x85' + b'I' + str(stride).encode() + b'\n\x85'
            + b'I00\n' + b'ccollections\nOrderedDict\n)R' + b'tR')


def state(value):
    """Pickled ``{'state_dict': {'a': value}}``."""
    return b'\x80\x02}' + text('state_dict') + b'}' + text('a') + value + b'ss.'


def archive(path, pickled, data=b'\0' * 64, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, 'w', compression) as file:
        file.writestr('archive/data.pkl', pickled)
        file.writestr('archive/version', '3')
        file.writestr('archive/byteorder', 'little')
        file.writestr('archive/data/0', data)
    return str(path)


def stream(path, pickled, keys=('0', ), data=b''):
    parts = [pickle.dumps(part, 2) for part in (STREAM_MAGIC, 1001, dict(little_endian=True))]
    path.write_bytes(b''.join(parts) + pickled + pickle.dumps(list(keys), 2) + data)
    return str(path)


def call(name, argument):
    module, _, name = name.rpartition('.')
    return b'c' + module.encode() + b'\n' + name.encode() + b'\n(' + argument + b'tR'


HUGE = {
    'a storage longer than its data': tensor('0', 1 << 31, 4, 1),
    'a tensor that repeats its storage': tensor('0', 16, 1 << 31, 0),
    'a call that makes room': call('torch.Tensor', b'I2147483648\n'),
    'a bytearray made by a call': call('builtins.bytearray', b'I8589934592\n'),
    'a bytearray of a length': b'\x96' + struct.pack('<Q', 1 << 33) + b'abc',
    'a memorised object of a high number': b'Nr' + struct.pack('<I', 0xFFFFFFF0),
}


@pytest.mark.parametrize('form', [archive, stream])
@pytest.mark.parametrize('value', HUGE.values(), ids=HUGE.keys())
def test_a_few_bytes_do_not_take_gigabytes(tmp_path, form, value):
    path = form(tmp_path / 'small.pth', state(value))
    with pytest.raises(BpuError, match='small.pth'):
        read_checkpoint(path)


def test_a_valid_one_of_both_forms_opens(tmp_path):
    value = tensor('0', 16, 16, 1)
    data = torch.arange(16.0)
    for path in (archive(tmp_path / 'a.pth', state(value), data.numpy().tobytes()),
                 stream(tmp_path / 's.pth', state(value), data=struct.pack('<q', 16)
                        + data.numpy().tobytes())):
        assert scan_checkpoint(path)
        assert torch.equal(read_checkpoint(path)['state_dict']['a'], data)


def test_compressed_parts_are_refused(tmp_path):
    path = archive(tmp_path / 'small.pth', state(tensor('0', 1 << 20, 4, 1)), b'\0' * (4 << 20),
                   zipfile.ZIP_DEFLATED)
    with pytest.raises(BpuError, match='data.pkl is compressed'):
        read_checkpoint(path)


@pytest.mark.parametrize('legacy', [False, True])
def test_wherever_a_file_was_cut_it_is_refused_by_name(tmp_path, legacy):
    buffer = io.BytesIO()
    torch.save(dict(state_dict=OrderedDict(a=torch.ones(30), b=torch.ones(2, 3).half()),
                    meta=dict(epoch=1)), buffer, _use_new_zipfile_serialization=not legacy)
    whole, path = buffer.getvalue(), tmp_path / 'cut.pth'
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(BpuError, match='cut.pth'):
            read_checkpoint(str(path))


def nested(times):
    value = [1]
    for _ in range(times):
        value = [value, value]
    return value


def cycle():
    value = []
    value.append(value)
    return value


def deep():
    value = []
    for _ in range(400):
        value = [value]
    return value


class Odd:
    """Makes its file one that is read without looking up names."""


@pytest.mark.parametrize('foreign', [False, True])
@pytest.mark.parametrize('make', [lambda: nested(60), cycle, deep])
def test_metadata_without_an_end_is_refused(tmp_path, make, foreign):
    path = tmp_path / 'endless.pth'
    meta = dict(found=make())
    if foreign:
        meta['odd'] = Odd()
    torch.save(dict(state_dict=dict(a=torch.ones(2)), meta=meta), path)
    with pytest.raises(BpuError, match='endless.pth: its metadata holds itself'):
        read_checkpoint(str(path))


def test_a_key_that_takes_for_ever_to_hash_is_refused(tmp_path):
    pair = b'I1\n' + b'q\x01' + b''.join(b'h%c' % (i + 1) + b'\x86q%c' % (i + 2) for i in range(60))
    path = archive(tmp_path / 'slow.pth', b'\x80\x02}' + pair + b'I1\ns.')
    with pytest.raises(BpuError, match='slow.pth cannot be read .*a key of type tuple'):
        read_checkpoint(path)


@pytest.mark.parametrize('content', [
    3, [1, 2], None, dict(state_dict=[torch.ones(1)], meta={}),
    dict(state_dict=dict(a=torch.ones(1)), meta='text')], ids=str)
def test_another_structure_is_refused(tmp_path, content):
    path = tmp_path / 'other.pth'
    torch.save(content, path)
    with pytest.raises(BpuError, match='other.pth holds a'):
        read_checkpoint(str(path))


@pytest.mark.parametrize('plain', [
    {'__plain__': 'unknown'}, {'__plain__': 'array'}, {'__plain__': ['list']},
    {'__plain__': 'text_array', 'items': ['x' * 100_000] + [''] * 1000},
    {'__plain__': 'history', 'values': 1, 'counts': 2, 'max_length': 3},
    {'__plain__': 'array', 'data': torch.zeros(1, dtype=torch.uint8).expand(9), 'dtype': 'V9',
     'shape': [1 << 60]}], ids=str)
def test_plain_data_with_other_contents_than_its_tag_is_refused_or_left_out(tmp_path, plain):
    path = tmp_path / 'tagged.pth'
    torch.save(dict(state_dict={}, message_hub=plain, meta={}), path)
    with pytest.raises(BpuError, match='tagged.pth'):
        read_checkpoint(str(path))
