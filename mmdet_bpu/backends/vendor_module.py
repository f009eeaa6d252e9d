"""The vendor's quantized network as an executable: the same integers in, integers out.

Never yet run against the vendor's package; see :mod:`mmdet_bpu.backends.hbdk4`.
"""
from collections import Counter
from typing import Any, Dict, Optional, Sequence

import numpy as np
import torch
from torch import Tensor

from mmdet_bpu.backends import hbdk4
from mmdet_bpu.errors import BpuError
from mmdet_bpu.executors.input_check import check_inputs
from mmdet_bpu.executors.protocol import Network
from mmdet_bpu.program.dtypes import ELEMENT_TYPES, TORCH_DTYPES
from mmdet_bpu.program.hbm_file import ONLY_NETWORK
from mmdet_bpu.program.program import TensorSpec


class VendorModule:
    """What ``convert`` made of a network, run on the CPU by the vendor's package.

    Where its inputs are float, it is fed what the integers stand for; where its outputs are, they
    are rounded to the integers of ``outputs``, on which they lie if the vendor kept our scales.

    Args:
        hbir_text (str): Fake-quantized HBIR.
        march (str): March name.
        inputs (Sequence[TensorSpec]): Of our integers: names, shapes, dtypes, scales.
        outputs (Sequence[TensorSpec]): Likewise.
        metadata (dict, optional): The deployment contract.

    The attributes are those of :class:`mmdet_bpu.executors.protocol.Executable`.

    Raises:
        BpuError: hbdk4 is absent or refuses the network, or its network has other inputs or
            outputs.
    """

    def __init__(self, hbir_text: str, march: str, inputs: Sequence[TensorSpec],
                 outputs: Sequence[TensorSpec], metadata: Optional[dict] = None) -> None:
        self.name, self.metadata = ONLY_NETWORK, metadata or {}
        self.inputs, self.outputs = list(inputs), list(outputs)
        self.function = hbdk4.quantized_function(hbir_text, march)
        self._types = {
            kind: _types_of(getattr(self.function, kind), kind, specs)
            for kind, specs in (('inputs', self.inputs), ('outputs', self.outputs))}
        self.kernel_counts = {'hbdk4': Counter(network=1)}

    @property
    def networks(self) -> list[Network]:
        return [self]

    def run(self, inputs: Dict[str, Tensor]) -> Dict[str, Tensor]:
        """Run one inference on integers.

        Raises:
            BpuError: The inputs do not fit, or the vendor's package fails; the message holds its
                words.
        """
        check_inputs(self.inputs, inputs)
        given = {spec.name: _fed(inputs[spec.name], spec, self._types['inputs'][spec.name])
                 for spec in self.inputs}
        try:
            results = self.function.feed(given)
        except Exception as error:  # The vendor documents no exception types.
            raise BpuError(f'backend hbdk4 could not run its network: {type(error).__name__}: '
                           f'{error}') from error
        missing = [spec.name for spec in self.outputs if spec.name not in results]
        if missing:
            raise BpuError(f'backend hbdk4: its network gave no {", ".join(missing)}, only '
                           f'{", ".join(results)}')
        return {spec.name: _taken(results[spec.name], spec) for spec in self.outputs}


def _types_of(values: Any, kind: str, specs: Sequence[TensorSpec]) -> Dict[str, np.dtype]:
    """Element type of each input or output, if they are the ones that we have too."""
    found = {value.name: value.type for value in values}
    for spec in specs:
        shape = tuple(found[spec.name].shape) if spec.name in found else None
        if shape != tuple(spec.shape):
            raise BpuError(f'backend hbdk4: expected {spec.name} {tuple(spec.shape)} among the {kind} '
                           f'of its network, found {_listed(found)}')
    return {name: np.dtype(type_.np_dtype) for name, type_ in found.items()}


def _listed(found: Dict[str, Any]) -> str:
    return ', '.join(f'{name} {tuple(type_.shape)}' for name, type_ in found.items()) or 'none'


def _fed(integers: Tensor, spec: TensorSpec, dtype: np.dtype) -> np.ndarray:
    if dtype.kind == 'f':
        real = integers.float() * torch.tensor(spec.scale, dtype=torch.float32)
        return np.ascontiguousarray(real.numpy().astype(dtype))
    own = np.dtype(ELEMENT_TYPES[spec.dtype].user)
    if dtype != own:
        raise BpuError(f'backend hbdk4: expected its input {spec.name} as {own} or float, found '
                       f'{dtype}')
    return np.ascontiguousarray(integers.numpy())


def _taken(result: Any, spec: TensorSpec) -> Tensor:
    array = np.asarray(result)
    if array.dtype.kind != 'f':
        own = TORCH_DTYPES[spec.dtype]
        taken = torch.from_numpy(np.ascontiguousarray(array))
        if taken.dtype != own:
            raise BpuError(f'backend hbdk4: expected its output {spec.name} as '
                           f'{str(own).removeprefix("torch.")} or float, found {array.dtype}')
        return taken
    row = ELEMENT_TYPES[spec.dtype]
    levels = np.rint(array.astype(np.float64) / spec.scale).clip(row.low, row.high)
    return torch.from_numpy(levels).to(TORCH_DTYPES[spec.dtype])
