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
    if not isinstance(inputs, dict):
        raise BpuError(f'expected a dict of the inputs {names}, found {type(inputs).__name__}')
    if set(inputs) != set(names):
        raise BpuError(f'expected the inputs {names}, found {sorted(map(str, inputs))}')
    for spec in specs:
        found = inputs[spec.name]
        if not isinstance(found, torch.Tensor) or found.layout != torch.strided \
                or found.device.type == 'meta':
            kind = f'{found.layout} on {found.device}' if isinstance(found, torch.Tensor) \
                else type(found).__name__
            raise BpuError(f'input {spec.name!r}: expected a torch.Tensor with its values, found '
                           f'{kind}')
        if tuple(found.shape) != tuple(spec.shape) or found.dtype != TORCH_DTYPES[spec.dtype]:
            raise BpuError(f'input {spec.name!r}: expected {spec.dtype} of shape '
                           f'{tuple(spec.shape)}, found {found.dtype} of shape '
                           f'{tuple(found.shape)}')
