"""The contract's bound of any rounding, by its integer operation."""
from xdsl.ir import SSAValue

from mmdet_bpu.analysis.contract_bounds import BOUNDS, Bound, rounding_of
from mmdet_bpu.analysis.product_bounds import product_bound
from mmdet_bpu.hbir.passes.conversion import Conversion


def contract_bound(conversion: Conversion, value: SSAValue) -> Bound:
    """How far a value may be from the exact one before it is rounded, in LSB.

    Args:
        conversion (Conversion): That made the integer form.
        value (SSAValue): Result of a fake quantizer that is not the image's.
    """
    rounding = rounding_of(conversion, value)
    if rounding.quantizer in conversion.products:
        return product_bound(rounding)
    return BOUNDS[conversion.emitted[value].owner.name](rounding)
