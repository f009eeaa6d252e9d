"""The head of a network that a camera feeds, put before its image, in both dialects.

A network is captured, quantized, analysed and lowered from its image on. What turns a camera's
planes into that image is known from the deployment contract alone:

    %image : si8, S                        (an argument)

becomes, in the integer form,

    %yuv   = bpu.image_convert(%image_y, %image_uv)        bytes less 128, each U, V for 2 x 2 px
    %image = bpu.image_preprocess(%yuv) {matrix, offset, low, shift, levels}

and, in fake-quantized HBIR, what the vendor's tools insert there
(:mod:`mmdet_bpu.hbir.camera_ops`):

    %yuv   = hbir.image_convert(%image_y, %image_uv) {mode}
    %image = hbir.image_preprocess(%yuv) {csc, divisor, mean, sd}

Without ``image_convert`` for ``yuv444``, whose argument is the bytes less 128.
"""
from typing import Any, Callable, Dict, List, Optional, Tuple

import numpy as np
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import SSAValue

from mmdet_bpu.errors import BpuError
from mmdet_bpu.hbir.builder import METADATA, NAME, OpBuilder, find_function, metadata_of
from mmdet_bpu.hbir.camera_ops import CONVERT_MODES, CSC_MODES, NO_CSC
from mmdet_bpu.hbir.types import tensor_type, value_type
from mmdet_bpu.runtime.camera import decoding
from mmdet_bpu.runtime.camera_frame import plane_types
from mmdet_bpu.runtime.color_conversion import CENTRE, gray_of_luma
from mmdet_bpu.runtime.input_stage import takes_planes
from mmdet_bpu.runtime.levels import level_table

SITE = 'camera'
Replaced = Tuple[ModuleOp, Dict[SSAValue, SSAValue]]
Head = Callable[[OpBuilder, List[SSAValue], SSAValue], SSAValue]
"""Builder, planes and the image as it was -> the image."""


def stage_of(metadata: Dict[str, Any]) -> Optional[Dict[str, Any]]:
    """``preprocessing`` of a contract whose network converts a camera's planes; None of others."""
    stage = metadata.get('preprocessing') or {}
    return stage if takes_planes(stage) else None


def insert_integer_stage(module: ModuleOp, stage: Dict[str, Any]) -> Replaced:
    """Put the conversion before the image of an integer module, which is used up.

    Args:
        module (ModuleOp): Of the ``bpu`` dialect, with one input.
        stage (dict): ``preprocessing`` of its contract.

    Returns:
        tuple[ModuleOp, dict]: The module with the planes as its inputs; value before -> after, of
        the image.
    """
    conversion = decoding(stage['camera'], stage['color_order'])

    def head(builder: OpBuilder, planes: List[SSAValue], image: SSAValue) -> SSAValue:
        shape, dtype, scale = value_type(image)
        yuv = planes[0]
        if stage['camera']['format'] in CONVERT_MODES:
            yuv = builder.op('bpu.image_convert', planes, {}, tensor_type(shape, 'si8'), site=SITE)
        levels = level_table(stage, scale).T.astype(np.int64).ravel()
        attrs = dict(matrix=[factor for row in conversion.matrix for factor in row],
                     offset=list(conversion.offset), low=list(conversion.low),
                     shift=conversion.shift, levels=levels)
        return builder.op('bpu.image_preprocess', [yuv], attrs, tensor_type(shape, dtype, scale),
                          site=SITE)

    return _with_head(module, stage, head, 'bpu')


def insert_vendor_stage(module: ModuleOp, stage: Dict[str, Any]) -> ModuleOp:
    """Fake-quantized HBIR with the vendor's own forms before its image.

    Args:
        module (ModuleOp): With one input, float32; it is not changed.
        stage (dict): ``preprocessing`` of its contract.

    Raises:
        BpuError: There is no form for the camera's matrix; see :func:`vendor_refusal`.
    """
    require_vendor_form(stage)
    attributes = preprocess_attributes(stage)

    def head(builder: OpBuilder, planes: List[SSAValue], image: SSAValue) -> SSAValue:
        shape = value_type(image).shape
        yuv = planes[0]
        if stage['camera']['format'] in CONVERT_MODES:
            mode = CONVERT_MODES[stage['camera']['format']]
            yuv = builder.op('hbir.image_convert', planes, dict(mode=mode),
                             tensor_type(shape, 'si8'), site=SITE)
        return builder.op('hbir.image_preprocess', [yuv], attributes, tensor_type(shape, 'f32'),
                          site=SITE)

    return _with_head(module.clone(), stage, head, 'hbir')[0]


def vendor_refusal(stage: Dict[str, Any]) -> Optional[str]:
    """Why the vendor's forms cannot say what a camera's conversion is; None if they can."""
    matrix = stage['camera']['matrix']
    if matrix == 'bt601' or stage['color_order'] in ('yuv', 'gray'):
        return None
    return ("field bpu.input_format.matrix: expected 'bt601' for HBIR, whose image_preprocess knows "
            f'no other, found {matrix!r}; model.int.mlir and the .hbm of the simulator convert it '
            'by our own operations')


def require_vendor_form(stage: Optional[Dict[str, Any]]) -> None:
    """Refuse a camera's conversion that the vendor's forms cannot say.

    Args:
        stage (dict, optional): As :func:`stage_of` gives it; None converts nothing.

    Raises:
        BpuError: See :func:`vendor_refusal`.
    """
    refusal = None if stage is None else vendor_refusal(stage)
    if refusal is not None:
        raise BpuError(refusal)


def preprocess_attributes(stage: Dict[str, Any]) -> Dict[str, Any]:
    """Attributes of ``hbir.image_preprocess`` for a contract that :func:`vendor_refusal` lets by.

    Without a conversion it sees bytes less 128. Video range of a gray camera is part of mean and
    deviation: ``(gray(y) - mean) / sd`` where gray is linear in y.
    """
    camera, order = stage['camera'], stage['color_order']
    mean, sd = (np.asarray(stage[name], np.float64) for name in ('mean', 'std'))
    csc = CSC_MODES.get((camera['range'], order), NO_CSC)
    if order == 'gray':
        conversion = gray_of_luma(camera['range'])
        factor = conversion.matrix[0][0] / (1 << conversion.shift)
        black = conversion.low[0]
        mean, sd = mean / factor + black, sd / factor
    elif csc == NO_CSC:
        mean = mean - CENTRE
    return dict(csc=csc, divisor=1, mean=mean.tolist(), sd=sd.tolist())


def _with_head(module: ModuleOp, stage: Dict[str, Any], head: Head, dialect: str) -> Replaced:
    """A module whose image is made of planes; the given one is taken apart."""
    function = find_function(module)
    block = function.body.block
    image, = block.args
    name, = _names(function, 'arg_attrs')
    _, height, width, _ = value_type(image).shape
    planes = plane_types(stage['camera']['format'], height, width, name)
    builder = OpBuilder([(each, tensor_type(shape, dtype)) for each, dtype, shape in planes],
                        dialect)
    seen = head(builder, list(builder.inputs), image)
    image.replace_all_uses_with(seen)
    outputs = []
    for op in list(block.ops):
        if isinstance(op, ReturnOp):
            outputs = list(zip(_names(function, 'res_attrs'), op.operands))
            op.detach()
            op.erase()
        else:
            op.detach()
            builder.adopt(op)
    metadata = metadata_of(module) if METADATA in module.attributes else None
    return builder.finish(outputs, metadata), {image: seen}


def _names(function: FuncOp, attribute: str) -> List[str]:
    return [entry.data[NAME].data for entry in getattr(function, attribute).data]
