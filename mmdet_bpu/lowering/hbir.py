"""Lower the deployed operation graph to fake-quantized HBIR.

Feature maps are stored channels last. Each own value is followed by a ``qnt.const_fake_quant``;
weights and constant operands have theirs. One rule per kind of operation, see
:mod:`mmdet_bpu.lowering.rules`.
"""
from xdsl.dialects.builtin import ModuleOp

import mmdet_bpu.lowering.elementwise  # noqa: F401  (the rules register themselves)
import mmdet_bpu.lowering.movement  # noqa: F401
import mmdet_bpu.lowering.products  # noqa: F401
import mmdet_bpu.lowering.reductions  # noqa: F401
import mmdet_bpu.lowering.selection  # noqa: F401
from mmdet_bpu.errors import BpuError
from mmdet_bpu.graph.opgraph import OpGraph
from mmdet_bpu.graph.quantized_graph import Scales
from mmdet_bpu.hbir.layout import identity
from mmdet_bpu.lowering.lowered_values import LoweredValues
from mmdet_bpu.lowering.rules import LOWERINGS

__all__ = ['Scales', 'lower_graph']


class Lowering(LoweredValues):
    """One run of :func:`lower_graph`."""

    def run(self) -> ModuleOp:
        """Lower every op."""
        for op in self.graph.ops:
            if op.kind not in LOWERINGS:
                raise BpuError(f'{op.site}: no integer form of {op.kind}')
            stored = LOWERINGS[op.kind](self, op)
            if stored.shape != self.shape(op):
                raise AssertionError(f'{op.site}: lowered to {stored.shape}, captured '
                                     f'{self.shape(op)}')
            stored.ssa = self.fake_quant(op.output, stored.ssa, op.site)
            self.values[op.output] = stored
        outputs = []
        for name, public in zip(self.graph.outputs, self.graph.output_names):
            rank = len(self.graph.values[name].shape)
            outputs.append((public, self.in_order(name, identity(rank))))
        return self.b.finish(outputs)


def lower_graph(graph: OpGraph, scales: Scales) -> ModuleOp:
    """Fake-quantized HBIR of a deployed graph.

    Args:
        graph (OpGraph): Its constants hold the weights as they are now.
        scales (Scales): Quantization of every own value, constant operand and weight.

    Raises:
        BpuError: An op without an integer form; the message names its site.
    """
    return Lowering(graph, scales).run()
