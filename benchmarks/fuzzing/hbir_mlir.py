"""``.hbir.mlir``: fake-quantized modules as text."""
import random
from pathlib import Path

import numpy as np
from xdsl.dialects.builtin import ModuleOp

from fuzzing.case import Case
from fuzzing.damaged_bytes import damaged
from fuzzing.hostile_text import mutated, restyled
from mmdet_bpu.hbir.builder import OpBuilder
from mmdet_bpu.hbir.passes import convert
from mmdet_bpu.hbir.text import print_text, read_text
from mmdet_bpu.hbir.types import tensor_type
from mmdet_bpu.program.budget import MEMORY_BUDGET

SCALE = 0.05


class HbirMlir:
    """Text changed by bytes, tokens and lines; what is accepted prints as text that is read again.

    What means the same prints the same and converts to the same integers.
    """
    name = 'hbir_mlir'
    budget_bytes = MEMORY_BUDGET

    def prepare(self, folder: Path) -> None:
        """See :class:`fuzzing.case.Kind`."""
        self.path = folder / 'model.hbir.mlir'
        self.seed = print_text(_module())
        self.integers = print_text(convert(_module())[0])

    def case(self, rng: random.Random) -> Case:
        """A case's data: the file, and whether it means what the seed means."""
        chance = rng.random()
        if chance < 0.1:
            data, words = damaged(self.seed.encode(), rng)
            return Case((data, False), words)
        text, words = (restyled if chance < 0.2 else mutated)(self.seed, rng)
        return Case((text.encode(), chance < 0.2), words)

    def run(self, case: Case) -> str:
        """See :class:`fuzzing.case.Kind`."""
        data, kept = case.data
        module = self._read(data)
        text = print_text(module)
        if print_text(self._read(text.encode())) != text:
            return 'different'
        if kept and (print_text(convert(module)[0])) != self.integers:
            return 'different'
        return 'equal'

    def _read(self, data: bytes) -> ModuleOp:
        self.path.write_bytes(data)
        return read_text(self.path)


def _module() -> ModuleOp:
    """A convolution with a shortcut, pooling, a linear layer and a sampling."""
    random_numbers = np.random.default_rng(5)
    builder = OpBuilder([('image', tensor_type((1, 8, 8, 3), 'f32'))])

    def quantized(value, bits=8, scale=SCALE, axis=None):
        return builder.fake_quant(value, bits, scale, axis, site='net/quantizer')

    def weights(*shape):
        values = random_numbers.normal(size=shape).astype(np.float32)
        scales = np.abs(values).reshape(shape[0], -1).max(1) / 127
        return quantized(builder.constant(values), scale=scales, axis=0)

    window = dict(stride=[1, 1], pad=[1, 1, 1, 1], dilation=[1, 1], groupNum=1)
    image = quantized(builder.inputs[0])
    stem = quantized(builder.op('hbir.conv2d', [image, weights(4, 3, 3, 3), None], window,
                                tensor_type((1, 8, 8, 4), 'f32'), 'net/stem'))
    inner = builder.op('hbir.conv2d', [stem, weights(4, 3, 3, 4), None], window,
                       tensor_type((1, 8, 8, 4), 'f32'), 'net/inner')
    total = builder.op('hbir.add', [inner, stem], {}, tensor_type((1, 8, 8, 4), 'f32'), 'net/add')
    block = quantized(builder.op('hbir.relu', [total], {}, total.type, 'net/relu'))
    tokens = builder.op('hbir.reshape', [block], dict(shape=[1, 64, 4]),
                        tensor_type((1, 64, 4), 'f32'), 'net/reshape')
    curved = quantized(builder.op('hbir.sigmoid', [tokens], {}, tokens.type, 'net/sigmoid'),
                       scale=1 / 127)
    scores = quantized(builder.op('hbir.linear', [curved, weights(5, 4), None], {},
                                  tensor_type((1, 64, 5), 'f32'), 'net/linear'), bits=16)
    return builder.finish([('scores', scores), ('tokens', curved)])
