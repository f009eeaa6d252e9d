"""A whole contract, checked before a picture is fed: it comes from a file."""
from typing import Any, Dict, List, Tuple

from mmdet_bpu.errors import BpuError
from mmdet_bpu.runtime.camera import FORMATS, side_multiple
from mmdet_bpu.runtime.camera_frame import plane_types
from mmdet_bpu.runtime.color_conversion import MATRICES, RANGES
from mmdet_bpu.runtime.detections import checked_facts
from mmdet_bpu.runtime.facts import COUNT, FLAG, Kind, numbers, one_of
from mmdet_bpu.runtime.input_stage import INTERPOLATIONS, takes_planes
from mmdet_bpu.runtime.picture_frame import CORNERS

COLOR_ORDERS = ('rgb', 'bgr', 'gray', 'unchanged')
CAMERA_ORDERS = ('rgb', 'bgr', 'gray', 'yuv')
TABLE = Kind('a table', lambda value: isinstance(value, dict))
TEXTS = Kind('a list of names', lambda value: isinstance(value, list) and all(
    isinstance(name, str) for name in value))
NESTED = Kind('a name or nested lists of names', lambda value: isinstance(value, (str, list)))
RESIZE = dict(height=COUNT, width=COUNT, keep_ratio=FLAG, interpolation=one_of(*INTERPOLATIONS))
MAY_RESIZE = dict(enlarge=FLAG, clip=one_of('input', 'picture'), multiple=COUNT)
CAMERA = dict(format=one_of(*FORMATS), range=one_of(*RANGES), matrix=one_of(*MATRICES),
              by=one_of('network', 'host'))


def check_contract(contract: Dict[str, Any]) -> None:
    """Check what a host needs to feed a network and to read its outputs.

    Args:
        contract (dict): Content of model.deploy.json: with the network's ``inputs`` and
            ``outputs``.

    Raises:
        BpuError: A part is missing or odd, or does not fit the network's input.
    """
    _check(contract, 'contract', dict(preprocessing=TABLE, postprocessing=TABLE, classes=TEXTS))
    if 'family' not in contract['postprocessing']:  # version 0.1: its facts are read from there
        _check(contract['preprocessing'], 'contract, preprocessing', dict(resize=TABLE))
    checked_facts(contract)
    if contract.get('output_tree') is not None:
        _check(contract, 'contract', dict(output_tree=NESTED))
    _check_input(contract)


def _check_input(contract: Dict[str, Any]) -> None:
    inputs = contract['inputs']
    stage, where = contract['preprocessing'], 'contract, preprocessing'
    if stage.get('camera') is not None:
        _check(stage, where, dict(camera=TABLE, color_order=one_of(*CAMERA_ORDERS)))
        _check(stage['camera'], f'{where}.camera', CAMERA)
        _check_colors(stage, where)
    planes = takes_planes(stage)
    if not planes and (len(inputs) != 1 or inputs[0]['dtype'] != 'si8'
                       or inputs[0]['scale'] is None or len(inputs[0]['shape']) != 4):
        raise BpuError('contract, inputs: expected one int8 image (N, H, W, C) with a scale, found '
                       f'{_listed(inputs)}')
    if stage.get('camera') is None:
        channels, orders = inputs[0]['shape'][3], COLOR_ORDERS
    else:
        channels, orders = 1 if stage['color_order'] == 'gray' else 3, CAMERA_ORDERS
    _check(stage, where, dict(
        resize=TABLE, color_order=one_of(*orders), mean=numbers(channels),
        std=Kind(f'{numbers(channels).words} that are not 0',
                 lambda value: numbers(channels).fits(value) and all(value))))
    resize, where = stage['resize'], f'{where}.resize'
    _check(resize, where, RESIZE)
    _check(resize, where, {name: kind for name, kind in MAY_RESIZE.items() if name in resize})
    if resize['keep_ratio']:
        _check(resize, where, dict(corner=one_of(*CORNERS), pad_value=numbers(channels)))
    if stage.get('camera') is not None:
        _check_multiple(stage, where)
    if planes:
        _check_planes(inputs, stage)
        return
    expected = [1, resize['height'], resize['width'], channels]
    if list(inputs[0]['shape']) != expected:
        raise BpuError(f'{where}: pictures of {expected[1]} x {expected[2]} px do not fit the '
                       f'input of shape {list(inputs[0]["shape"])}')


def _check_colors(stage: Dict[str, Any], where: str) -> None:
    """A camera gives one channel or three, and the network sees as many."""
    gray = stage['camera']['format'] == 'gray'
    if gray != (stage['color_order'] == 'gray'):
        raise BpuError(f'{where}.color_order: expected '
                       f'{"gray" if gray else "rgb or bgr or yuv"} for a camera that gives '
                       f'{stage["camera"]["format"]}, found {stage["color_order"]!r}')


def _check_multiple(stage: Dict[str, Any], where: str) -> None:
    """Planes at half the size need even sides, and a picture on even px."""
    step = side_multiple(stage['camera'])
    resize = stage['resize']
    if resize['interpolation'] != 'bilinear':
        raise BpuError(f"{where}.interpolation: expected 'bilinear' for a camera's planes, found "
                       f'{resize["interpolation"]!r}')
    if resize['height'] % step or resize['width'] % step or resize.get('multiple', 1) % step:
        raise BpuError(f'{where}: expected a height, a width and a multiple that {step} divides '
                       f'for {stage["camera"]["format"]}, found {resize["height"]}, {resize["width"]} '
                       f'and {resize.get("multiple", 1)}')


def _check_planes(inputs: List[Dict[str, Any]], stage: Dict[str, Any]) -> None:
    expected = [(dtype, list(shape)) for _, dtype, shape in plane_types(
        stage['camera']['format'], stage['resize']['height'], stage['resize']['width'])]
    if _listed(inputs) != expected:
        raise BpuError(f'contract, inputs: expected {expected} of a camera that gives '
                       f'{stage["camera"]["format"]}, found {_listed(inputs)}')


def _listed(inputs: List[Dict[str, Any]]) -> List[Tuple[str, List[int]]]:
    return [(entry['dtype'], list(entry['shape'])) for entry in inputs]


def _check(part: Dict[str, Any], where: str, expected: Dict[str, Kind]) -> None:
    for name, kind in expected.items():
        if name not in part:
            raise BpuError(f'{where}: expected {name}, {kind.words}, found none')
        if not kind.fits(part[name]):
            raise BpuError(f'{where}.{name}: expected {kind.words}, found {str(part[name])[:80]}')
