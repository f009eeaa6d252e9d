"""Where a stage's weights come from.

Layout: the last component of a run's folder ends with its stage (``work_dirs/digits_qat``, or
``work_dirs/qat``). The stage before is looked for beside it, under the same name with the other
stage's ending (``work_dirs/digits_calibration``).
"""
from pathlib import Path
from typing import Optional

from mmdet_bpu.engine.newest_checkpoint import newest_checkpoint
from mmdet_bpu.engine.stage_names import FLOAT, SOURCE_STAGES
from mmdet_bpu.errors import BpuError


def sibling_folder(work_dir: str, stage: str, other: str) -> Optional[Path]:
    """Folder of another stage beside ``work_dir``; None if that does not end with its stage."""
    folder = Path(work_dir)
    if not folder.name.endswith(stage):
        return None
    return folder.with_name(folder.name[:len(folder.name) - len(stage)] + other)


def find_source(stage: str, work_dir: str, load_from: Optional[str]) -> Optional[str]:
    """Checkpoint that a run beyond float starts from.

    Args:
        stage (str): Stage of the run.
        work_dir (str): Its folder.
        load_from (str, optional): The config's ``load_from``; wins if given.

    Returns:
        str | None: Path, or None for a float run that starts from nothing.

    Raises:
        BpuError: Beyond float, nothing was given and nothing was found; the message says what to
            give and where was looked.
    """
    if load_from is not None or stage == FLOAT:
        return load_from
    looked = []
    for source in SOURCE_STAGES[stage]:
        folder = sibling_folder(work_dir, stage, source)
        if folder is None or source == stage:
            continue
        found = newest_checkpoint(folder)
        if found is not None:
            return str(found)
        looked.append(str(folder))
    expected = ' or '.join(repr(name) for name in SOURCE_STAGES[stage])
    where = f'none found in {", ".join(looked)}' if looked else \
        f'work_dir {work_dir} does not end with {stage!r}, so no sibling folder was searched'
    raise BpuError(f'stage {stage!r} needs a checkpoint to start from: load_from is not set, and '
                   f'{where}. Give one of stage {expected} (a stock mmdet checkpoint counts as '
                   "'float') by parameter load_from=FILE, or as load_from in the config")
