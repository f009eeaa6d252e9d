"""What a wrong config makes of building its parts, said in one sentence.

mmengine and mmcv build what a config names, and raise errors of Python where they cannot. Which of
them are the config's fault is told by where they are raised: in a registry that builds or in what it
builds, or in a step of the stock runner that sets up a run. All others are program errors and stay
as they are.
"""
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Iterator, List, Mapping, NamedTuple, Optional, Tuple

import mmcv.cnn.bricks
import mmengine.optim.optimizer
import mmengine.registry
import mmengine.runner
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.runner import Runner

import mmdet_bpu
from mmdet_bpu.engine.foreign_errors import LONGEST, frames_of, in_one_line
from mmdet_bpu.errors import BpuError
from mmdet_bpu.families.config_reading import class_of, type_name
from mmdet_bpu.output_folder import FULL_DISK

OURS = Path(mmdet_bpu.__file__).parent
REGISTRY = Path(mmengine.registry.__file__).parent
OPTIMIZERS = Path(mmengine.optim.optimizer.__file__).parent
RUNNER = Path(mmengine.runner.__file__).parent / 'runner.py'
# They look up some layers by themselves: those that these fields name.
BRICKS = Path(mmcv.cnn.bricks.__file__).parent
LAYERS = ('norm_cfg', 'conv_cfg', 'upsample_cfg')
# Steps of the stock runner -> what of the config they are about.
SET_UP = dict(
    __init__='config', setup_env='env_cfg', set_randomness='randomness', build_logger='log_level',
    build_message_hub='experiment_name', build_visualizer='visualizer', build_model='model',
    build_optim_wrapper='optim_wrapper', build_param_scheduler='param_scheduler',
    _build_param_scheduler='param_scheduler', _check_scheduler_cfg='param_scheduler',
    build_evaluator='evaluator', build_dataloader='dataloader', build_train_loop='train_cfg',
    build_val_loop='val_cfg', build_test_loop='test_cfg', build_log_processor='log_processor',
    register_default_hooks='default_hooks', register_custom_hooks='custom_hooks',
    register_hook='custom_hooks', wrap_model='model_wrapper_cfg', scale_lr='auto_scale_lr')
# A machine that is too small is no fault of a config.
NO_FAULTS = (BpuError, MemoryError, torch.cuda.OutOfMemoryError)
Part = Tuple[str, Mapping]


class _Fault(NamedTuple):
    """What a config names that cannot be built.

    Attributes:
        name (str): Name of its type, or of the config's field.
        words (str): Why.
        chain (list[Mapping]): Configs that were being built, the outermost first.
        step (str, optional): Field that the step of the runner is about, if it is one.
    """
    name: str
    words: str
    chain: List[Mapping] = []
    step: Optional[str] = None


@contextmanager
def refused_config(cfg: Config) -> Iterator[None]:
    """Run what builds parts of a config.

    Raises:
        BpuError: A type that no registry knows, or arguments that the type does not take.
    """
    try:
        yield
    except NO_FAULTS:
        raise
    except Exception as error:
        if getattr(error, 'errno', None) in FULL_DISK:
            raise
        parts = list(_parts(cfg.to_dict()))
        fault = _fault(error, parts)
        if fault is None:
            raise
        place = _place(fault, parts) or fault.step
        raise BpuError(fault.words if place is None else f'field {place}: {fault.words}') from error


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


def _fault(error: Exception, parts: List[Part]) -> Optional[_Fault]:
    """What of a config is at fault; None if it is none of a config."""
    frames = [frame for frame, _ in frames_of(error.__traceback__)]
    steps = [step for step in map(_step, frames) if step is not None]
    chain = [frame.f_locals['cfg'] for frame in frames
             if _builds(frame) and isinstance(frame.f_locals.get('cfg'), Mapping)]
    source, text = _folder(frames[-1]), str(error.args[0] if error.args else error)
    if isinstance(error, TypeError) and source == REGISTRY and '.__init__' in text:
        name = text.partition('.__init__')[0]
        return _Fault(name, f'{text}; correct the arguments in the config', chain)
    if isinstance(error, KeyError) and source in (REGISTRY, BRICKS):
        return _unknown_type(text, source, parts, chain)
    for frame in frames:
        if frame.f_locals.get('optimizer_cls', ...) is None and _folder(frame) == OPTIMIZERS:
            name = type_name(frame.f_locals.get('optimizer_cfg'))
            return _unknown_type(f'{name} is not in the registry of optimizers', source, parts, chain)
    for frame in reversed(frames):
        inside = OURS in Path(frame.f_code.co_filename).parents
        if inside and (isinstance(error, AssertionError) or not chain):
            return None  # assertions of ours, and what we do with a model that was built
        if _builds(frame):
            name = type_name(chain[-1]) if chain else ''
            return _Fault(name, f'{name or "it"} cannot be built: {in_one_line(error)}; correct '
                          'its arguments in the config', chain, steps[-1] if steps else None)
        if _step(frame) is not None:
            # Arguments that a step does not take are refused by its caller.
            called = text.partition('()')[0].rpartition('.')[2]
            return _Fault('', f'the runner refuses it: {in_one_line(error)}', chain,
                          SET_UP.get(called, _step(frame)))
    return None


def _step(frame: FrameType) -> Optional[str]:
    """What of the config a step of the stock runner is about; None for other functions."""
    return SET_UP.get(frame.f_code.co_name) if Path(frame.f_code.co_filename) == RUNNER else None


def _unknown_type(text: str, source: Path, parts: List[Part], chain: List[Mapping]) -> _Fault:
    name = text.partition(' is not in ')[0]
    if source == BRICKS:  # mmcv does not say which
        name = next((type_name(part) for path, part in parts
                     if path.rpartition('.')[2] in LAYERS and 'type' in part
                     and class_of(part, MODELS) is None), '')
        text = f'{name} is not in the registry of models' if name else text
    if ' is not in ' not in text:
        return _Fault('', f'{" ".join(text.split())[:LONGEST]}; give it one in the config', chain)
    return _Fault(name.rpartition('.')[2], (
        f'{text.partition(". Please")[0]}; correct the name, or import the module that registers '
        'it by custom_imports'), chain)


def _place(fault: _Fault, parts: List[Part]) -> Optional[str]:
    """Dotted field of what cannot be built: inside of what was being built around it, if possible."""
    inside = ''
    for config in fault.chain[:-1]:
        same = [path for path, part in parts if path.startswith(inside) and part == config]
        inside = same[0] if same else inside
    named = [(path, part) for path, part in parts if fault.name and type_name(part) == fault.name]
    last = fault.chain[-1] if fault.chain else None
    ranked = sorted(named, key=lambda row: (not row[0].startswith(inside), row[1] != last))
    return f'{ranked[0][0]}.type' if ranked else None


def _builds(frame: FrameType) -> bool:
    """Whether it is a function of mmengine or mmcv that builds what a config names."""
    return frame.f_code.co_name.startswith('build') and _folder(frame) in (REGISTRY, BRICKS)


def _folder(frame: FrameType) -> Path:
    return Path(frame.f_code.co_filename).parent



def _parts(config: Any, path: str = '') -> Iterator[Part]:
    """Dicts of a config with their dotted fields, outer ones first."""
    if isinstance(config, Mapping):
        yield path, config
    inner = config.items() if isinstance(config, Mapping) else \
        enumerate(config) if isinstance(config, (list, tuple)) else ()
    for key, part in inner:
        yield from _parts(part, f'{path}.{key}' if path else str(key))
