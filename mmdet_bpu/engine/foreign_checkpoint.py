"""Read the tensors of a checkpoint that names classes we do not trust.

A checkpoint is a pickle whose instructions may name any callable. Here they are carried out with
one difference: a name is never looked up. Five names that build tensors and ordered dicts map to
our own code; every other name becomes an inert :class:`Stub`, whatever is done to it. So tensors
come out, and nothing that the file names is imported or called.

Both forms that ``torch.save`` has written are read: the zip archive (torch >= 1.6) and the stream
before it, in which OpenMMLab published its model zoo.
"""
import struct
import sys
import zipfile
from collections import OrderedDict
from pickle import Unpickler
from typing import Any, BinaryIO, Dict, Tuple

import torch

from mmdet_bpu.engine.checkpoint_scan import STREAM_MAGIC, Acceptor
from mmdet_bpu.engine.plain_data import Bounded
from mmdet_bpu.errors import BpuError

STORAGE_DTYPES = {
    'DoubleStorage': torch.float64, 'FloatStorage': torch.float32, 'HalfStorage': torch.float16,
    'BFloat16Storage': torch.bfloat16, 'LongStorage': torch.int64, 'IntStorage': torch.int32,
    'ShortStorage': torch.int16, 'CharStorage': torch.int8, 'ByteStorage': torch.uint8,
    'BoolStorage': torch.bool,
}


class Stub(Acceptor):
    """Stands for an object of a class that was not looked up: takes everything, does nothing."""

    def __new__(cls, *args, **kwargs):
        return super().__new__(cls)

    def __init__(self, *args, **kwargs):
        pass

    def __call__(self, *args, **kwargs):
        return Stub()


class _Storage:
    """A flat tensor that is filled when the file's position of its data is known."""

    def __init__(self, dtype: torch.dtype, numel: int) -> None:
        self.data = torch.zeros(numel, dtype=dtype)

    def fill(self, raw: bytes, swapped: bool = False) -> None:
        expected = self.data.numel() * self.data.element_size()
        if len(raw) != expected:
            raise BpuError(f'a tensor holds {len(raw)} bytes, expected {expected}: truncated file')
        if raw:
            self.data.copy_(torch.frombuffer(bytearray(raw), dtype=self.data.dtype))
            if swapped and self.data.element_size() > 1:
                self.data.untyped_storage().byteswap(self.data.dtype)


def _rebuild_tensor(storage: _Storage, offset: int, size, stride, *_) -> Any:
    if not isinstance(storage, _Storage):
        return Stub()
    return torch.as_strided(storage.data, tuple(size), tuple(stride), offset)


def _rebuild_parameter(data: Any, *_) -> Any:
    return data


class StubUnpickler(Unpickler):
    """The unpickler described in the module's docstring.

    Args:
        file (BinaryIO): Where the pickled bytes begin.
    """

    NAMES = {
        ('collections', 'OrderedDict'): OrderedDict,
        ('torch._utils', '_rebuild_tensor'): _rebuild_tensor,
        ('torch._utils', '_rebuild_tensor_v2'): _rebuild_tensor,
        ('torch._utils', '_rebuild_parameter'): _rebuild_parameter,
        ('torch', 'Size'): tuple,
    }

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding='utf-8')
        self.storages: Dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in self.NAMES:
            return self.NAMES[module, name]
        stub = type(name, (Stub, ), {})
        if module == 'torch' and name in STORAGE_DTYPES:
            stub.storage_dtype = STORAGE_DTYPES[name]
        return stub

    def persistent_load(self, reference: Tuple) -> Any:
        dtype = getattr(reference[1], 'storage_dtype', None) if reference[0] == 'storage' else None
        if dtype is None:
            return Stub()
        key, numel = reference[2], reference[4]
        if key not in self.storages:
            self.storages[key] = _Storage(dtype, numel)
        return self.storages[key]


def read_foreign_checkpoint(path: str) -> Dict[str, Any]:
    """Read weights and plain metadata of any checkpoint without executing what it names.

    Args:
        path (str): A file written by ``torch.save``.

    Returns:
        dict: ``state_dict`` (name -> tensor on CPU) and ``meta`` (what of the file's metadata is
        plain data).

    Raises:
        BpuError: The file is no checkpoint, is damaged, or holds no weights.

    What it declares has been held against its length
    (:func:`mmdet_bpu.engine.checkpoint_scan.scan_checkpoint`).
    """
    try:
        with open(path, 'rb') as file:
            content = _read_archive(file) if zipfile.is_zipfile(file) else _read_stream(file)
    except Exception as error:  # whatever bytes make of an unpickler
        raise BpuError(f'checkpoint {path} cannot be read ({type(error).__name__}: '
                       f'{str(error)[:200]}); expected a file written by torch.save; copy it again'
                       ) from error
    if not isinstance(content, dict):
        raise BpuError(f'checkpoint {path} holds a {type(content).__name__}; expected a dict')
    weights = content.get('state_dict', content)
    tensors = {key: value for key, value in weights.items() if isinstance(value, torch.Tensor)} \
        if isinstance(weights, dict) else {}
    if not tensors:
        raise BpuError(f'checkpoint {path} holds no tensors; expected weights under state_dict')
    meta = content.get('meta')
    try:
        return dict(state_dict=tensors, meta=_PlainPart().of(meta) if isinstance(meta, dict) else {})
    except BpuError as error:
        raise BpuError(f'checkpoint {path}: {error}') from None


def _read_archive(file: BinaryIO) -> Any:
    with zipfile.ZipFile(file) as archive:
        pickled = next((name for name in archive.namelist() if name.endswith('/data.pkl')), None)
        if pickled is None:
            raise KeyError('no data.pkl in the archive')
        folder = pickled[:-len('data.pkl')]
        with archive.open(pickled) as stream:
            reader = StubUnpickler(stream)
            content = reader.load()
        order = folder + 'byteorder'
        big_endian = order in archive.namelist() and archive.read(order) == b'big'
        for key, storage in reader.storages.items():
            raw = archive.read(f'{folder}data/{key}')
            storage.fill(raw, swapped=big_endian != (sys.byteorder == 'big'))
    return content


def _read_stream(file: BinaryIO) -> Any:
    file.seek(0)
    if StubUnpickler(file).load() != STREAM_MAGIC:
        raise ValueError('neither a zip archive nor a stream of torch.save')
    StubUnpickler(file).load()  # protocol version
    StubUnpickler(file).load()  # sizes of the writer's integers
    reader = StubUnpickler(file)
    content = reader.load()
    for key in StubUnpickler(file).load():
        numel, = struct.unpack('<q', file.read(8))
        storage = reader.storages.get(key)
        if storage is None:
            raise KeyError(f'data of storage {key}, which no tensor uses')
        storage.fill(file.read(numel * storage.data.element_size()))
    return content


class _PlainPart(Bounded):
    """What of metadata is plain data; everything else is left out."""

    def of(self, value: Any) -> Any:
        if isinstance(value, dict):
            with self.inside(value):
                return {key: self.of(item) for key, item in value.items()
                        if isinstance(key, (str, int)) and not isinstance(item, Stub)}
        if isinstance(value, (list, tuple)):
            with self.inside(value):
                return [self.of(item) for item in value if not isinstance(item, Stub)]
        return value
