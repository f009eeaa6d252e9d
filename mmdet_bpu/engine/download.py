"""Checkpoints from an address, each kept under a name of its own, and only if it came whole."""
import hashlib
import re
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import BinaryIO, Iterator
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import torch
from mmengine.dist import broadcast_object_list, is_main_process
from torch import nn
from tqdm import tqdm

from mmdet_bpu.errors import BpuError
from mmdet_bpu.output_folder import atomic_file, reported

PATIENCE = 60  # s without a byte
CHUNK = 1 << 20  # bytes
SHOWN_NAME = 100  # characters of the address' last part that the file's name keeps


def is_address(path: str) -> bool:
    """Whether ``path`` is an ``http(s)://`` address."""
    return str(path).lower().startswith(('http://', 'https://'))


def downloaded(address: str) -> Path:
    """File of an address: kept in torch's download folder, by one process of those that share it.

    Its folder is named after the whole address, so two with the same last part are two files.

    Raises:
        BpuError: There is no such file or host, the connection failed, or it ended too early.
    """
    target = _kept_as(address)
    problem = [None]
    if is_main_process() and not target.is_file():
        try:
            _fetch(address, target)
        except BpuError as error:  # the others wait
            problem = [str(error)]
    broadcast_object_list(problem)
    if problem[0] is not None:
        raise BpuError(problem[0])
    if not target.is_file():  # a process on another machine
        _fetch(address, target)
    return target


def forget(address: str) -> None:
    """Remove the file of an address that turned out to be no checkpoint."""
    _kept_as(address).unlink(missing_ok=True)


def fetch_pretrained(model: nn.Module) -> None:
    """Download what parts of a model are initialised with, so that they load local files; in place.

    mmengine keeps downloads by the last part of their address alone.

    Raises:
        BpuError: As for :func:`downloaded`.
    """
    for module in model.modules():
        configs = getattr(module, 'init_cfg', None) or ()
        for config in (configs, ) if isinstance(configs, dict) else configs:
            if isinstance(config, dict) and is_address(config.get('checkpoint') or ''):
                config['checkpoint'] = str(downloaded(config['checkpoint']))


@contextmanager
def connected(what: str) -> Iterator[None]:
    """Run what asks another machine for ``what``.

    Raises:
        BpuError: It cannot be asked, or has no such file.
    """
    try:
        yield
    except HTTPError as error:
        reason = f'HTTP {error.code} {error.reason}'
    except URLError as error:
        reason = getattr(error.reason, 'strerror', None) or str(error.reason)
    except (HTTPException, ConnectionError, TimeoutError) as error:
        reason = str(error) or type(error).__name__
    else:
        return
    raise BpuError(f'{what} cannot be downloaded ({reason}); check the address and the connection, '
                   'or give a local file') from None


def _kept_as(address: str) -> Path:
    last = re.split('[?#]', address)[0].rpartition('/')[2]
    name = re.sub(r'[^\w.-]', '_', last)[-SHOWN_NAME:].lstrip('.')
    folder = hashlib.sha256(address.encode()).hexdigest()[:16]
    return Path(torch.hub.get_dir()) / 'checkpoints' / folder / (name or 'checkpoint.pth')


def _fetch(address: str, target: Path) -> None:
    with reported(str(target)):
        target.parent.mkdir(parents=True, exist_ok=True)
    what = f'checkpoint {address}'
    with connected(what), _answer(address, what) as response, atomic_file(target) as partial, \
            open(partial, 'wb') as file:
        _copy(response, file, what)


def _answer(address: str, what: str) -> HTTPResponse:
    try:
        return urlopen(Request(address, headers={'User-Agent': 'mmdet_bpu'}), timeout=PATIENCE)
    except (ValueError, OverflowError) as error:  # host or port are none
        raise BpuError(f'{what} cannot be downloaded ({error}); check the address') from None


def _copy(response: HTTPResponse, file: BinaryIO, what: str) -> None:
    length = response.headers.get('Content-Length')
    expected = int(length) if length and length.isdecimal() else None
    with tqdm(total=expected, unit='B', unit_scale=True, desc='download', disable=None,
              delay=2) as bar:
        while chunk := response.read(CHUNK):
            file.write(chunk)
            bar.update(len(chunk))
    if expected is not None and file.tell() != expected:
        raise BpuError(f'{what}: the connection ended after {file.tell()} of {expected} bytes; '
                       'nothing of it was kept, so try again')
