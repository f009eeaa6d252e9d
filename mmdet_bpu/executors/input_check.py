"""Whether tensors are what a network takes."""
import torch

from mmdet_bpu.errors import BpuError
from mmdet_bpu.program.dtypes import TORCH_DTYPES
from mmdet_bpu.program.program import TensorSpec


def check_inputs(specs: list[TensorSpec], inputs: dict[str, torch.Tensor]) -> None:
    """Compare names, shapes and dtypes.

    Raises:
        BpuError: An input is missing, unknown, or of another shape or dtype.
    """
    names = sorted(spec.name for spec in specs)
    if sorted(inputs) != names:
        raise BpuError(f'expected the inputs {names}, found {sorted(inputs)}')
    for spec in specs:
        found = inputs[spec.name]
        if tuple(found.shape) != tuple(spec.shape) or found.dtype != TORCH_DTYPES[spec.dtype]:
            raise BpuError(f'input {spec.name!r}: expected {spec.dtype} of shape '
                           f'{tuple(spec.shape)}, found {found.dtype} of shape '
                           f'{tuple(found.shape)}')
