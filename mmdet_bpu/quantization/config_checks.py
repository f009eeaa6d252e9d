"""What the units ask of dtypes, whoever chose them."""
from typing import Dict

from mmdet_bpu.errors import BpuError
from mmdet_bpu.graph.opgraph import Op, OpGraph
from mmdet_bpu.graph.quantized_graph import Placement, TensorConfig
from mmdet_bpu.program.kinds import with_weights


def check_int8(placement: Placement, configs: Dict[str, TensorConfig],
                readers: Dict[str, Op]) -> None:
    """Refuse a user's rule that widens what an operation reads as int8."""
    for head, op in readers.items():
        config = configs[head]
        if config.dtype != 'int8':
            raise BpuError(f'{config.rule} gives what {op.site} reads {config.dtype}: '
                           f'{op.kind} takes int8 only; leave its input int8')


def check_sampling(graph: OpGraph, placement: Placement,
                    configs: Dict[str, TensorConfig]) -> None:
    """Refuse other types of offsets and masks than a deformable convolution has."""
    for op in graph.ops:
        if op.kind != 'deform_conv2d':
            continue
        for (name, dtype), value in zip((('offset', 'int16'), ('mask', 'int8')), op.inputs[3:]):
            config = configs.get(placement.integers(value))
            if config is not None and config.dtype != dtype:
                raise BpuError(f'{config.rule} gives the {name} of {op.site} {config.dtype}: '
                               f'a deformable convolution takes it as {dtype}')


def check_accumulators(graph: OpGraph, placement: Placement,
                        configs: Dict[str, TensorConfig]) -> None:
    """Refuse int32 for anything but a convolution or linear layer that only the outputs read."""
    producers = graph.producers()
    read = {placement.integers(name) for op in graph.ops for name in graph.variable_inputs(op)}
    for value, config in configs.items():
        if config.dtype != 'int32':
            continue
        op = producers.get(value)
        site = op.site if op else 'image'
        if op is None or op.kind not in with_weights() or value in read:
            raise BpuError(f'{config.rule} gives {site} int32: only a convolution or linear layer '
                           'that makes an output directly may stay int32; use int16')
