"""A toy detector through the whole chain: QAT, HBIR text, integers, simulator, limits."""
from dataclasses import dataclass, field
from typing import Any, Dict, List

import torch

from mmdet_bpu.analysis.qat_vs_int import compare_qat_int
from mmdet_bpu.compiler.compile import write_hbm
from mmdet_bpu.compiler.legality import check_program
from mmdet_bpu.executors.interpreter import Interpreter
from mmdet_bpu.executors.simulator import HbmSimulator
from mmdet_bpu.hbir.integer_program import program_from_module
from mmdet_bpu.hbir.passes import convert
from mmdet_bpu.hbir.text import parse_text, print_text
from mmdet_bpu.lowering.export import lower_networks
from mmdet_bpu.quantization import quantized_graphs
from mmdet_bpu.program.numerics import saturate
from mmdet_bpu.program.program import Instruction, Program
from mmdet_bpu.quantization import model_report, prepare


@dataclass
class Chain:
    """What the chain made of a toy.

    Attributes:
        report (dict[str, dict]): Site -> row of the quantization report.
        program (Program): The integer program.
        outputs (dict[str, Tensor]): Its integers for the image.
        reals (dict[str, Tensor]): The same times their scale.
        trained (list[Tensor]): Outputs of the fake-quantized toy.
        comparison (dict): Of QAT with the integers, op by op.
        findings (list): Of the limits on nash-e.
    """
    report: Dict[str, dict]
    program: Program
    outputs: Dict[str, torch.Tensor]
    reals: Dict[str, torch.Tensor]
    trained: List[torch.Tensor]
    comparison: Dict[str, Any]
    findings: List[Any] = field(default_factory=list)

    @property
    def instructions(self) -> List[Instruction]:
        """Of the integer program."""
        return self.program.instructions

    @property
    def kinds(self) -> List[str]:
        """Names of the instructions without prefix."""
        return [instruction.op.removeprefix('bpu.') for instruction in self.instructions]


@torch.no_grad()
def run_chain(model, image, calibrated, folder, qconfig=()) -> Chain:
    """Prepare and calibrate ``model`` on ``image`` (N, 3, H, W), then every step after.

    Asserts what holds for any model: HBIR text parses back to the same text, and the simulator
    gives the interpreter's bits, and the passes find in the HBIR what the quantized graph decided.
    """
    settings = dict(input_shape=image.shape[-2:], qconfig=list(qconfig),
                    calibration=dict(observer='minmax'))
    model = calibrated(prepare(model, settings), image)
    trained = model(image)
    lowered = lower_networks(quantized_graphs(model))
    hbir, decided = lowered.module, lowered.convert().result
    text = print_text(hbir)
    assert print_text(parse_text(text)) == text
    integer, _ = convert(parse_text(text))
    text = print_text(integer)
    assert print_text(decided) == text
    assert print_text(parse_text(text)) == text
    program = program_from_module(integer)
    spec = program.spec('image')
    pixels = image.permute(0, 2, 3, 1).contiguous()
    integers = saturate(torch.div(pixels, torch.tensor(spec.scale)).round(), spec.dtype)
    outputs = Interpreter(program).run({'image': integers})
    write_hbm(program, folder / 'model.hbm', 'nash-e')
    simulated = HbmSimulator(folder / 'model.hbm').run({'image': integers})
    assert all(torch.equal(outputs[name], simulated[name]) for name in outputs)
    reals = {name: value * program.spec(name).scale for name, value in outputs.items()}
    return Chain({row['site']: row for row in model_report(model)}, program, outputs,
                 reals, list(trained) if isinstance(trained, (tuple, list)) else [trained],
                 compare_qat_int(hbir, pixels), check_program(program, 'nash-e'))
