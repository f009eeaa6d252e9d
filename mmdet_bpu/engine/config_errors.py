"""What a wrong config makes of building its parts, said in one sentence.

mmengine and mmcv build what a config names, and raise errors of Python where they cannot. Which of
them are the config's fault is told by where they are raised: in the registry that builds, not in
what is built. All others are program errors and stay as they are.
"""
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator, List, Mapping, Optional, Tuple

import mmcv.cnn.bricks
import mmengine.registry
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.runner import Runner

from mmdet_bpu.errors import BpuError
from mmdet_bpu.families.config_reading import type_name

REGISTRY = Path(mmengine.registry.__file__).parent
# They look up some layers by themselves: those that these fields name.
BRICKS = Path(mmcv.cnn.bricks.__file__).parent
LAYERS = ('norm_cfg', 'conv_cfg', 'upsample_cfg')
Part = Tuple[str, Mapping]


@contextmanager
def refused_config(cfg: Config) -> Iterator[None]:
    """Run what builds parts of a config.

    Raises:
        BpuError: A type that no registry knows, or arguments that the type does not take.
    """
    try:
        yield
    except (KeyError, TypeError) as error:
        parts = list(_parts(cfg.to_dict()))
        reason = _reason(error, parts)
        if reason is None:
            raise
        name, words = reason
        place = next((path for path, part in parts if type_name(part) == name), None)
        raise BpuError(words if place is None else f'field {place}.type: {words}') from error


@contextmanager
def present_files(field: str) -> Iterator[None]:
    """Build what reads files of a data set.

    Args:
        field (str): The config's field that is built.

    Raises:
        BpuError: A file is absent.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise BpuError(
            f'field {field}: {error.filename or error} not found; put the data there, or set '
            'data_root, ann_file and data_prefix to where they are') from error


def field_of(runner: Runner, part: Any, kind: str) -> str:
    """The config's field of a runner's ``dataloader`` or ``evaluator``, as far as it is known."""
    return next((f'{purpose}_{kind}' for purpose in ('train', 'val', 'test')
                 if part is getattr(runner, f'_{purpose}_{kind}', None)), kind)


def _reason(error: Exception, parts: List[Part]) -> Optional[Tuple[str, str]]:
    """Name of the type that cannot be built, and why; None if it is no fault of a config."""
    source, text = _raised_in(error), str(error.args[0] if error.args else error)
    if isinstance(error, TypeError) and source == REGISTRY:
        return text.partition('.__init__')[0], f'{text}; correct the arguments in the config'
    if not isinstance(error, KeyError) or source not in (REGISTRY, BRICKS):
        return None
    name = text.partition(' is not in ')[0]
    if source == BRICKS:  # mmcv does not say which
        name = next((type_name(part) for path, part in parts
                     if path.rpartition('.')[2] in LAYERS and 'type' in part
                     and MODELS.get(part['type']) is None), '')
        text = f'{name} is not in the registry of models' if name else text
    return name.rpartition('.')[2], (
        f'{text.partition(". Please")[0]}; correct the name, or import the module that registers '
        'it by custom_imports')


def _raised_in(error: Exception) -> Path:
    """Folder of the code line that raised."""
    trace = error.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    return Path(trace.tb_frame.f_code.co_filename).parent


def _parts(config: Any, path: str = '') -> Iterator[Part]:
    """Dicts of a config with their dotted fields, outer ones first."""
    if isinstance(config, Mapping):
        yield path, config
    inner = config.items() if isinstance(config, Mapping) else \
        enumerate(config) if isinstance(config, (list, tuple)) else ()
    for key, part in inner:
        yield from _parts(part, f'{path}.{key}' if path else str(key))
