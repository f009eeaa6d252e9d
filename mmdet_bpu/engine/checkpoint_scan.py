"""What a checkpoint declares, read before anything of it is allocated.

A file of 700 bytes can declare a tensor of 8 GB, and one call of an allowed name can make it. So the
pickled part is carried out once with inert stand-ins, in Python, and what it declares is held
against the file: storages against the bytes that are there, tensors against a budget, names against
those that build nothing larger than their arguments.
"""
import math
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any, BinaryIO, Callable, Dict, Tuple

from mmdet_bpu.errors import BpuError

# First object of the stream form, from torch/serialization.py.
STREAM_MAGIC = 0x1950A86A20F9469CFC6C
STORAGE_BYTES = {
    'DoubleStorage': 8, 'FloatStorage': 4, 'HalfStorage': 2, 'BFloat16Storage': 2,
    'LongStorage': 8, 'IntStorage': 4, 'ShortStorage': 2, 'CharStorage': 1, 'ByteStorage': 1,
    'BoolStorage': 1, 'ComplexFloatStorage': 8, 'ComplexDoubleStorage': 16, 'UntypedStorage': 1,
}
"""Storage class of torch -> bytes of an element."""
MADE_FROM_ARGUMENTS = {
    ('torch', 'Size'), ('torch', 'device'), ('_codecs', 'encode'), ('builtins', 'complex'),
    ('__builtin__', 'complex'),
}
"""Names whose calls make nothing larger than what they are given."""
TENSORS = {('torch._utils', f'_rebuild_tensor{version}') for version in ('', '_v2', '_v3')}
PARAMETERS = {('torch._utils', '_rebuild_parameter')}
DICTS = {('collections', 'OrderedDict')}
# A tensor may repeat its storage (expanded, tied); all of them together not more than this.
REPEATED = 16
FREE_BYTES = 256 << 20
SCALARS = (str, int, float, bytes, type(None))


class Declared:
    """What was found.

    Attributes:
        plain (bool): Whether only names came up that ``torch.load`` may be left alone with.
        storages (dict): Key -> bytes.
        tensor_bytes (int): Of all tensors, counted as often as they repeat their storage.
    """

    def __init__(self) -> None:
        self.plain = True
        self.storages: Dict[str, int] = {}
        self.tensor_bytes = 0


class Acceptor:
    """Stands for an object of a pickle: whatever is put into it is forgotten."""

    def __setstate__(self, state):
        pass

    def __setitem__(self, key, value):
        pass

    def append(self, item):
        pass

    def extend(self, items):
        pass

    def add(self, item):
        pass


class Inert(Acceptor):
    """Stands for any object: takes everything, does nothing."""

    def __init__(self, declared: Declared = None, known: bool = False, item_bytes: int = 0) -> None:
        self.declared, self.known, self.item_bytes = declared, known, item_bytes

    def __call__(self, *args, **kwargs):
        if self.declared is not None and not self.known:
            self.declared.plain = False
        return Inert()


class ScanUnpickler(pickle._Unpickler):
    """Carries a pickle out with stand-ins. It is Python's own slow one: the fast one makes room for as
    many memorised objects as a file names.

    Args:
        file (BinaryIO): Where the pickled bytes begin.
        declared (Declared): What is added to.
        length (int): Of the file, bytes.
    """

    dispatch = dict(pickle._Unpickler.dispatch)

    def __init__(self, file: BinaryIO, declared: Declared, length: int) -> None:
        super().__init__(file, encoding='utf-8')
        self.declared, self.length = declared, length

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in DICTS:
            return _ordered_dict
        if (module, name) in TENSORS:
            return self._tensor
        if (module, name) in PARAMETERS:
            return _first
        item_bytes = STORAGE_BYTES.get(name, 0) if module in ('torch', 'torch.storage') else 0
        return Inert(self.declared, (module, name) in MADE_FROM_ARGUMENTS, item_bytes)

    def persistent_load(self, reference: Tuple) -> Any:
        if reference[0] != 'storage':
            self.declared.plain = False
            return Inert()
        _, kind, key, _, numel = reference[:5]
        item_bytes = getattr(kind, 'item_bytes', 0)
        if not item_bytes:
            self.declared.plain = False
        size = numel * item_bytes
        if size < 0:
            raise ValueError(f'a storage of {size} bytes')
        self.declared.storages[str(key)] = max(size, self.declared.storages.get(str(key), 0))
        return Inert(item_bytes=item_bytes)

    def _tensor(self, storage: Inert, offset: int, size: Any, *_) -> Inert:
        shape = size if isinstance(size, (list, tuple)) else ()
        self.declared.tensor_bytes += math.prod(shape) * getattr(storage, 'item_bytes', 0)
        return Inert()

    def load_build(self) -> None:
        self.stack.pop()  # states of stand-ins: metadata of modules, nothing to hold

    dispatch[pickle.BUILD[0]] = load_build

    def load_setitems(self) -> None:
        items = self.pop_mark()
        for key in items[::2]:
            _require_scalar(key)
        target = self.stack[-1]
        for index in range(0, len(items), 2):
            target[items[index]] = items[index + 1]

    dispatch[pickle.SETITEMS[0]] = load_setitems

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        _require_scalar(key)
        self.stack[-1][key] = value

    dispatch[pickle.SETITEM[0]] = load_setitem

    def load_newobj(self) -> None:
        self.stack.pop()
        self.stack[-1] = self.stack[-1]()

    dispatch[pickle.NEWOBJ[0]] = load_newobj

    def load_additems(self) -> None:
        self.pop_mark()  # of a set, which nothing is read from

    dispatch[pickle.ADDITEMS[0]] = load_additems

    def load_long_binput(self) -> None:
        index, = struct.unpack('<I', self.read(4))
        self._remember(index)

    dispatch[pickle.LONG_BINPUT[0]] = load_long_binput

    def load_put(self) -> None:
        self._remember(int(self.readline()))

    dispatch[pickle.PUT[0]] = load_put

    def _remember(self, index: int) -> None:
        # The fast unpickler makes room for all smaller ones; each takes a byte of a file at least.
        if not 0 <= index <= self.length:
            raise ValueError(f'object {index} of a file of {self.length} bytes')
        self.memo[index] = self.stack[-1]

    def refuse(self) -> None:
        raise ValueError('an object that torch.save does not write')

    for _opcode in (pickle.BYTEARRAY8, pickle.DICT, pickle.FROZENSET, pickle.INST, pickle.EXT1,
                    pickle.EXT2, pickle.EXT4, pickle.NEXT_BUFFER, pickle.NEWOBJ_EX):
        dispatch[_opcode[0]] = refuse


def scan_checkpoint(path: str) -> bool:
    """Hold what a checkpoint declares against its length.

    Args:
        path (str): A file.

    Returns:
        bool: Whether ``torch.load`` may read it; otherwise only what never calls what it names.

    Raises:
        BpuError: It declares more than it holds, or is no checkpoint.
    """
    length = Path(path).stat().st_size
    declared = Declared()
    try:
        with open(path, 'rb') as file:
            scan: Callable = _scan_archive if zipfile.is_zipfile(file) else _scan_stream
            scan(file, declared, length)
    except BpuError as error:
        raise BpuError(f'checkpoint {path}: {error}') from None
    except Exception as error:  # whatever bytes make of an unpickler
        raise BpuError(f'checkpoint {path} cannot be read ({type(error).__name__}: '
                       f'{str(error)[:200]}); expected a file written by torch.save; copy it again'
                       ) from error
    if declared.tensor_bytes > REPEATED * length + FREE_BYTES:
        raise BpuError(f'checkpoint {path}: its tensors would take {declared.tensor_bytes} bytes, '
                       f'the file has {length}')
    return declared.plain


def _scan_archive(file: BinaryIO, declared: Declared, length: int) -> None:
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        for entry in entries.values():
            if entry.compress_type != zipfile.ZIP_STORED:
                raise BpuError(f'its part {entry.filename} is compressed; expected a file as '
                               'torch.save writes it')
        if sum(entry.file_size for entry in entries.values()) > length:
            raise BpuError(f'its parts are declared longer than the file, {length} bytes')
        pickled = next((name for name in entries if name.endswith('/data.pkl')), None)
        if pickled is None:
            raise KeyError('no data.pkl in the archive')
        with archive.open(pickled) as stream:
            ScanUnpickler(stream, declared, length).load()
        folder = pickled[:-len('data.pkl')]
        for key, size in declared.storages.items():
            entry = entries.get(f'{folder}data/{key}')
            found = 0 if entry is None else entry.file_size
            if size > found:
                raise BpuError(f'a tensor holds {found} bytes, expected {size}: truncated file')
        damaged = archive.testzip()  # torch does not look at the checksums
        if damaged is not None:
            raise BpuError(f'its part {damaged} has another checksum than when it was saved; copy it '
                           'again')


def _scan_stream(file: BinaryIO, declared: Declared, length: int) -> None:
    file.seek(0)
    if ScanUnpickler(file, declared, length).load() != STREAM_MAGIC:
        raise ValueError('neither a zip archive nor a stream of torch.save')
    for _ in range(3):  # protocol version, sizes of the writer's integers, content
        ScanUnpickler(file, declared, length).load()
    keys = ScanUnpickler(file, declared, length).load()
    if sum(declared.storages.values()) > length - file.tell():
        raise BpuError(f'its tensors hold {sum(declared.storages.values())} bytes, the file has '
                       f'{length - file.tell()} for them: truncated file')
    for key in keys:
        numel, = struct.unpack('<q', file.read(8))
        if numel < 0 or str(key) not in declared.storages:
            raise KeyError(f'data of storage {key}, which no tensor uses')
        file.seek(declared.storages[str(key)], 1)
    if file.tell() > length:
        raise BpuError('its last tensor is not whole: truncated file')


def _ordered_dict(*args) -> dict:
    items = [tuple(item) for item in args[0]] if args else []
    for key, _ in items:
        _require_scalar(key)
    return dict(items)


def _first(value: Any, *_) -> Any:
    return value


def _require_scalar(key: Any) -> None:
    """Keys that are hashed in no time: a nested tuple that shares its parts may take for ever."""
    parts = key if isinstance(key, tuple) else (key, )
    if not all(isinstance(part, (*SCALARS, Inert)) for part in parts):
        raise ValueError(f'a key of type {type(key).__name__}')
