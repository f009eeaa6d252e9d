"""Signatures of what the vendor's tools insert at an input that a camera feeds: data only.

Source: the vendor's HBDK API reference (OpenExplorer for Journey 6): the forms that its compiler
prints after ``insert_image_convert`` and ``insert_image_preprocess``. It does not say what they
compute; that ``image_convert`` gives Y, U, V less 128 with each U, V for 2 x 2 px, and
``image_preprocess`` ``(csc(image) / divisor - mean) / sd``, is inferred from the calls' arguments.
The notation is that of :mod:`mmdet_bpu.program.signatures`.
"""
from typing import Callable, Mapping

from xdsl.ir import Operation
from xdsl.utils.exceptions import VerifyException

from mmdet_bpu.hbir.attributes import plain_value
from mmdet_bpu.hbir.types import value_type

TABLE = '''
image_convert = y: ui8[4], uv~: ui8[4] -> output: si8[4] {mode: #ImageConvertMode}
image_preprocess = image: si8[4] -> output: f32[4] {csc: #CSCMode, divisor: i64, mean: f32s,
    sd: f32s}
'''
REQUIRED_ATTRIBUTES = {'image_convert': 'mode', 'image_preprocess': 'csc divisor mean sd'}

CONVERT_MODES = {'nv12': 'NV12', 'gray': 'GRAY'}
"""Format of a camera -> mode of ``image_convert``."""
NO_CSC = 'NONE'
CSC_MODES = {(levels, order): f'YUVBT601{levels.upper()}2{order.upper()}'
             for levels in ('full', 'video') for order in ('rgb', 'bgr')}
"""Range and order of channels -> mode of ``image_preprocess``; all are BT.601."""


def _verify_convert(op: Operation) -> None:
    mode = plain_value(op.properties['mode'])
    if mode not in CONVERT_MODES.values():
        raise VerifyException(f'mode is one of {", ".join(CONVERT_MODES.values())}, found {mode}')
    shapes = [value_type(value).shape for value in op.operands]
    batch, height, width, channels = shapes[0]
    expected = [(batch, height, width, 1)]
    if mode == CONVERT_MODES['nv12']:
        if height % 2 or width % 2:
            raise VerifyException(f'y has {height} x {width} px, expected even sides')
        expected.append((batch, height // 2, width // 2, 2))
    if shapes != expected:
        raise VerifyException(f'mode {mode}: operands have shapes {shapes}, expected {expected}')
    result = (batch, height, width, 3 if len(expected) > 1 else 1)
    if value_type(op.results[0]).shape != result:
        raise VerifyException(f'the result has shape {value_type(op.results[0]).shape}, expected '
                              f'{result}')


def _verify_preprocess(op: Operation) -> None:
    shape, result = (value_type(value).shape for value in (op.operands[0], op.results[0]))
    if shape != result:
        raise VerifyException(f'the result has shape {result}, expected {shape}')
    csc = plain_value(op.properties['csc'])
    if csc not in (NO_CSC, *CSC_MODES.values()):
        raise VerifyException(f'csc is {NO_CSC} or one of {", ".join(CSC_MODES.values())}, found '
                              f'{csc}')
    if csc != NO_CSC and shape[3] != 3:
        raise VerifyException(f'csc {csc} of an image of {shape[3]} channels, expected 3')
    mean, sd = (plain_value(op.properties[name]) for name in ('mean', 'sd'))
    for name, values in (('mean', mean), ('sd', sd)):
        if len(values) != shape[3]:
            raise VerifyException(f'{name} has {len(values)} values, expected {shape[3]}')
    if plain_value(op.properties['divisor']) < 1 or not all(value > 0 for value in sd):
        raise VerifyException('divisor and sd are above 0, found '
                              f'{plain_value(op.properties["divisor"])} and {sd}')


VERIFY: Mapping[str, Callable[[Operation], None]] = {
    'image_convert': _verify_convert, 'image_preprocess': _verify_preprocess}
"""Name without prefix -> check of an operation whose signature holds."""
