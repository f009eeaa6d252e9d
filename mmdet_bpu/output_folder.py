"""Write many files so that only complete sets of them appear under their names."""
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, Union

from mmdet_bpu.errors import BpuError


@contextmanager
def staged_folder(out_dir: Union[str, Path]) -> Iterator[Path]:
    """A temporary folder whose content moves to ``out_dir`` when the block ends without an error.

    It lies inside ``out_dir``, on the same file system, so that each move is a rename. Files that
    are there already under other names stay. After an error ``out_dir`` is as it was; it is removed
    if this call had made it.

    Args:
        out_dir (str | Path): Folder to write; made if needed.

    Raises:
        BpuError: ``out_dir`` is a file, or cannot be written.
    """
    out = Path(out_dir)
    existed = out.exists()
    if existed and not out.is_dir():
        raise BpuError(f'--out {out}: expected a folder, found a file')
    try:
        out.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix='.partial-', dir=out))
    except OSError as error:
        raise BpuError(f'--out {out} cannot be written: {error.strerror}') from None
    done = False
    try:
        yield staging
        for source in sorted(staging.rglob('*')):
            if source.is_file():
                target = out / source.relative_to(staging)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(source, target)
        done = True
    except OSError as error:
        raise BpuError(f'--out {out} cannot be written: {error}') from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        if not done and not existed:
            shutil.rmtree(out, ignore_errors=True)
