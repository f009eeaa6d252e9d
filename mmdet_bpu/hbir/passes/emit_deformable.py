"""Integer form of a deformable convolution, but for its weights and its requantization."""
from typing import List

from xdsl.ir import Operation, SSAValue

from mmdet_bpu.errors import BpuError
from mmdet_bpu.hbir.builder import attrs_of, site_of
from mmdet_bpu.hbir.passes.conversion import Product
from mmdet_bpu.hbir.passes.emit import Emitter
from mmdet_bpu.program.numerics import quantize_multiplier
from mmdet_bpu.program.sampling_grid import FRACTION_BITS


def sampled_at(e: Emitter, op: Operation) -> List[SSAValue]:
    """Offsets and, with ``useMask``, the mask of ``hbir.deform_conv2d``.

    Raises:
        BpuError: They are not int16 and int8.
    """
    names = (('offset', 2, 'si16'), ('mask', 3, 'si8'))[:2 if attrs_of(op)['useMask'] else 1]
    for name, index, expected in names:
        found = e.type_of(op.operands[index], op).dtype
        if found != expected:
            raise BpuError(f'{site_of(op)}: deform_conv2d takes its {name} as {expected}, found '
                           f'{found}; change the qconfig rule of the {name}')
    return [e.operand(op.operands[index], op) for _, index, _ in names]


def deform_conv2d_attrs(e: Emitter, match: Product) -> dict:
    """Attributes of ``bpu.deform_conv2d`` beyond those of its requantization."""
    op, hbir = match.op, attrs_of(match.op)
    offset = e.type_of(op.operands[2], op)
    multiplier, shift = quantize_multiplier(offset.scale * 2**FRACTION_BITS)
    return dict(stride=hbir['stride'], pad=hbir['pad'], dilation=hbir['dilation'],
                groups=hbir['groupNum'], offset_groups=hbir['offsetGroupNum'],
                fraction_bits=FRACTION_BITS, sample_bits=match.factor.sample_bits,
                offset_multiplier=[multiplier], offset_shift=[shift])
