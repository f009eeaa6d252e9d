"""Open LMDB files to read: once per process, again after a fork, refused when not whole."""
import os
import threading
import weakref
from typing import NamedTuple

import lmdb

from mmdet_bpu.errors import BpuError

# lmdb refuses to open one file twice in a process, so all readers of a file share its environment.
_environments: 'weakref.WeakValueDictionary[tuple, lmdb.Environment]' = \
    weakref.WeakValueDictionary()
_opening = threading.RLock()


def _forget_environments_of_parent() -> None:
    """After a fork the child must not use what its parent opened; it opens its own to read."""
    global _opening
    _opening = threading.RLock()
    for environment in list(_environments.values()):
        environment.close()
    _environments.clear()


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=_forget_environments_of_parent)


class NotWholeError(BpuError):
    """A file that ends before its last page, or does not begin as LMDB's do."""


class Reading(NamedTuple):
    """A payload while it is in use: keeps the mapped file that it points into open."""
    payload: memoryview
    transaction: lmdb.Transaction

    def __enter__(self) -> memoryview:
        return self.payload

    def __exit__(self, *_) -> None:
        pass


def open_environment(data_file: str) -> lmdb.Environment:
    """The environment of this process for one LMDB file, read-only and without a lock file.

    Args:
        data_file (str): Path of the file.

    Returns:
        lmdb.Environment: The same object for the same file while it is in use.

    Raises:
        NotWholeError: If the file is truncated or not LMDB's.
        BpuError: If LMDB cannot open it for another reason.
        OSError: If there is no such file.
    """
    status = os.stat(data_file)
    identity = (os.getpid(), status.st_dev, status.st_ino)
    with _opening:
        environment = _environments.get(identity)
        if environment is None:
            try:
                # Without readahead each 4 KB page of an image not in memory is a read of its own.
                environment = lmdb.open(data_file, subdir=False, readonly=True, lock=False,
                                        readahead=True)
            except lmdb.Error as error:
                kind = NotWholeError if isinstance(error, lmdb.InvalidError) else BpuError
                raise kind(
                    f'{data_file} cannot be opened as an LMDB database ({error})') from None
            _environments[identity] = environment
    expected = (environment.info()['last_pgno'] + 1) * environment.stat()['psize']
    if status.st_size < expected:
        # Reading a page that the file does not have would end the process with SIGBUS.
        raise NotWholeError(f'{data_file} is truncated: {expected} bytes expected, '
                            f'{status.st_size} found; copy or pack it again')
    return environment
