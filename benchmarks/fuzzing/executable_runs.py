"""An executable as users run it: networks on integers, and the detector in a picture."""
from math import prod

import numpy as np
import torch

from mmdet_bpu.engine.predictors import ArtifactPredictor
from mmdet_bpu.executors.protocol import Executable
from mmdet_bpu.families.contract import decoding_in, output_tree_in
from mmdet_bpu.program.dtypes import INTEGER_RANGES, TORCH_DTYPES
from mmdet_bpu.program.program import TensorSpec
MANY = 1 << 20
PICTURE = np.arange(10 * 12 * 3, dtype=np.uint32).reshape(10, 12, 3).astype(np.uint8)


def serve(executable: Executable) -> dict[str, torch.Tensor]:
    """Outputs of every network for the same integers every time; and what is detected.

    Raises:
        BpuError: The executable, or what it says of itself, is refused.
    """
    found = {}
    for network in executable.networks:
        inputs = {spec.name: integers(spec) for spec in network.inputs}
        found.update({f'{network.name} {name}': value
                      for name, value in network.run(inputs).items()})
    if 'postprocessing' in executable.metadata:
        decoding_in(executable.metadata)
        output_tree_in(executable.metadata, [spec.name for spec in executable.outputs])
        detections = ArtifactPredictor(executable, 'artefact').predict(PICTURE)
        found.update({f'detected {part}': torch.from_numpy(np.ascontiguousarray(value))
                      for part, value in vars(detections).items()})
    return found


def integers(spec: TensorSpec) -> torch.Tensor:
    """Integers of the whole range of an input's type, the same every time.

    Many are all 0: the product's memory is measured, not that of these.
    """
    low, high = INTEGER_RANGES[spec.dtype]
    count = prod(spec.shape)
    if count > MANY:
        return torch.zeros(spec.shape, dtype=TORCH_DTYPES[spec.dtype])
    values = (torch.arange(count, dtype=torch.int64) * 7919 + 13) % (high - low + 1) + low
    return values.reshape(spec.shape).to(TORCH_DTYPES[spec.dtype])


def equal_outputs(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    """Whether two runs gave the same tensors under the same names."""
    return left.keys() == right.keys() and all(
        left[name].dtype == right[name].dtype and torch.equal(left[name], right[name])
        for name in left)
