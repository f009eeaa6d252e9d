"""A whole contract, checked before a picture is fed: it comes from a file."""
from typing import Any, Dict

from mmdet_bpu.errors import BpuError
from mmdet_bpu.runtime.detections import checked_facts
from mmdet_bpu.runtime.facts import COUNT, FLAG, Kind, numbers, one_of
from mmdet_bpu.runtime.input_stage import INTERPOLATIONS
from mmdet_bpu.runtime.picture_frame import CORNERS

COLOR_ORDERS = ('rgb', 'bgr', 'gray', 'unchanged')
TABLE = Kind('a table', lambda value: isinstance(value, dict))
TEXTS = Kind('a list of names', lambda value: isinstance(value, list) and all(
    isinstance(name, str) for name in value))
NESTED = Kind('a name or nested lists of names', lambda value: isinstance(value, (str, list)))
RESIZE = dict(height=COUNT, width=COUNT, keep_ratio=FLAG, interpolation=one_of(*INTERPOLATIONS))
MAY_RESIZE = dict(enlarge=FLAG, clip=one_of('input', 'picture'))


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
    if len(inputs) != 1 or inputs[0]['dtype'] != 'si8' or inputs[0]['scale'] is None \
            or len(inputs[0]['shape']) != 4:
        raise BpuError('contract, inputs: expected one int8 image (N, H, W, C) with a scale, found '
                       f'{[(entry["dtype"], entry["shape"]) for entry in inputs]}')
    channels = inputs[0]['shape'][3]
    stage, where = contract['preprocessing'], 'contract, preprocessing'
    _check(stage, where, dict(
        resize=TABLE, color_order=one_of(*COLOR_ORDERS), mean=numbers(channels),
        std=Kind(f'{numbers(channels).words} that are not 0',
                 lambda value: numbers(channels).fits(value) and all(value))))
    resize, where = stage['resize'], f'{where}.resize'
    _check(resize, where, RESIZE)
    _check(resize, where, {name: kind for name, kind in MAY_RESIZE.items() if name in resize})
    if resize['keep_ratio']:
        _check(resize, where, dict(corner=one_of(*CORNERS), pad_value=numbers(channels)))
    expected = [1, resize['height'], resize['width'], channels]
    if list(inputs[0]['shape']) != expected:
        raise BpuError(f'{where}: pictures of {expected[1]} x {expected[2]} px do not fit the '
                       f'input of shape {list(inputs[0]["shape"])}')


def _check(part: Dict[str, Any], where: str, expected: Dict[str, Kind]) -> None:
    for name, kind in expected.items():
        if name not in part:
            raise BpuError(f'{where}: expected {name}, {kind.words}, found none')
        if not kind.fits(part[name]):
            raise BpuError(f'{where}.{name}: expected {kind.words}, found {str(part[name])[:80]}')
