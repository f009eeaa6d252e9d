"""One stock mmdet config through the whole chain, step by step: what ``families.py`` runs.

Random weights under which the stock float head detects something (``family_weights.py``), images of
the embedded digits, then: capture, prepare, calibrate on two images, HBIR, integers, op by op
against QAT, ``.hbm``, simulator, the stock head's decoding of both, and the host's numpy decoder.
"""
import tempfile
import time
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

import numpy as np
import torch
from family_boxes import count_boxes
from family_images import batch_of, digit_images
from family_weights import ENOUGH, IMAGES, build_stock, give_meaning, read_config
from torch import Tensor

from mmdet_bpu.analysis.qat_vs_int import compare_qat_int, defects
from mmdet_bpu.compiler.compile import compile_program
from mmdet_bpu.engine.artifact_detector import ArtifactDetector, quantize_image
from mmdet_bpu.engine.predictors import contract_of
from mmdet_bpu.errors import BpuError
from mmdet_bpu.executors import HbmSimulator, Interpreter
from mmdet_bpu.families.contract import deploy_metadata
from mmdet_bpu.families.detector_path import run_tensor_path
from mmdet_bpu.families.refusals import refuse_config, refuse_model
from mmdet_bpu.graph.capture import capture
from mmdet_bpu.graph.deploy_graph import open_attention
from mmdet_bpu.hbir.integer_program import program_from_module
from mmdet_bpu.hbir.passes import conversion_of
from mmdet_bpu.hbir.text import parse_text, print_text
from mmdet_bpu.lowering.export import export_networks
from mmdet_bpu.models.deformable_convolution import open_deformable_convolution
from mmdet_bpu.quantization import finish_calibration, prepare, quantized_graphs, set_quant_state
from mmdet_bpu.runtime.detections import detect

MARCH = 'nash-e'
NEAR, NEAR_SCORE = 0.02, 1e-3  # px and score: numpy's float32 against torch's
SMALLER_SCALES = (4, 16, 64)
DISTINCT = 0.95  # share of scores that must differ, for their order to be determined


class Failed(Exception):
    """A step that ran and gave what it must not."""


class Chain:
    """Runs the steps of one config.

    Args:
        config (str): ``mmdet::folder/name.py``.
        shape (tuple[int, int]): (height, width) of the input, px.
    """

    def __init__(self, config: str, shape: Tuple[int, int]) -> None:
        self.config, self.shape = config, shape
        self.step = 'build'
        self.max_lsb = None
        self.boxes: Dict[str, int] = {}

    def run(self) -> Dict[str, Any]:
        """All steps; the row of the table."""
        began = time.time()
        message, passed = '', True
        steps: Tuple[Callable[[], None], ...] = (
            self.build, self.capture, self.prepare, self.calibrate, self.hbir, self.integers,
            self.op_by_op, self.compile, self.simulate, self.decode, self.decode_on_the_host)
        try:
            for step in steps:
                self.step = step.__name__
                with torch.no_grad():
                    step()
        except (BpuError, Failed) as error:
            message, passed = str(error), False
        except Exception as error:  # a program error: the table says where, the run goes on
            traceback.print_exc()
            message, passed = f'TRACEBACK {type(error).__name__}: {error}', False
        return dict(config=self.config, family=self.config.partition('::')[2].partition('/')[0],
                    passed=passed, step=self.step, message=message, max_lsb=self.max_lsb,
                    boxes=self.boxes, seconds=round(time.time() - began, 1))

    def build(self) -> None:
        """The detector with weights under which it detects something."""
        self.cfg = read_config(self.config)
        refuse_config(self.cfg)
        self.model = build_stock(self.config)
        refuse_model(self.model, self.cfg)
        open_deformable_convolution(self.model)
        self.pictures = digit_images(IMAGES, self.shape)
        give_meaning(self.model, self.pictures)
        self.boxes = count_boxes(self.model, self.pictures)
        short = [f'{name} {self.boxes[name]} < {least}' for name, least in ENOUGH.items()
                 if self.boxes[name] < least]
        if short:
            raise Failed(f'the float head gives too few boxes: {", ".join(short)}')
        self.batch = batch_of(self.model, self.pictures)
        self.images: List[Tensor] = list(self.batch.inputs.split(1))

    def capture(self) -> None:
        """Run back, the captured graph gives the stock model's outputs bit for bit."""
        stock = run_tensor_path(self.model, self.images[0])
        open_attention(self.model)
        replayed = capture(self.model, self.images[0]).run(self.images[0])
        if len(stock) != len(replayed) or not all(map(torch.equal, stock, replayed)):
            raise Failed('the captured graph does not give the stock outputs')

    def prepare(self) -> None:
        """Fake quantizers in."""
        prepare(self.model, dict(input_shape=self.shape, calibration=dict(observer='minmax')))

    def calibrate(self) -> None:
        """Ranges of two images."""
        set_quant_state(self.model, 'observe')
        for image, sample in zip(self.images, self.batch.samples):
            self.model(image, [sample], mode='tensor')
        finish_calibration(self.model)
        set_quant_state(self.model, 'quantize')

    def hbir(self) -> None:
        """Fake-quantized HBIR whose text parses back to the same text."""
        self.networks = quantized_graphs(self.model)
        self.module = export_networks(self.networks)
        text = print_text(self.module)
        if print_text(parse_text(text)) != text:
            raise Failed('HBIR does not parse back to the same text')

    def integers(self) -> None:
        """The integer program with its deploy contract."""
        self.cfg.bpu = dict(input_shape=self.shape, march=MARCH)
        metadata = deploy_metadata(self.cfg, self.model, self.networks[0].graph.output_tree)
        self.conversion = conversion_of(self.module, metadata)
        self.program = program_from_module(self.conversion.result)
        self.interpreter = Interpreter(self.program)
        scale = self.interpreter.inputs[0].scale
        self.levels = [quantize_image(image[0], scale) for image in self.images]

    def op_by_op(self) -> None:
        """No operation differs from QAT by more than 1 LSB, but by what the contract costs it."""
        result = compare_qat_int(self.conversion, self.levels[0])
        self.max_lsb = result['max_lsb']
        worse = [f'{row["site"]} ({row["kind"]}): {row.get("qat_max_lsb", row["max_lsb"])} LSB, '
                 f'not {row["bound_lsb"]}' for row in defects(result)]
        if worse:
            raise Failed(f'{len(worse)} operations differ from QAT: {"; ".join(worse[:4])}')

    def compile(self) -> None:
        """A ``.hbm``."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / 'model.hbm'
            compile_program(self.program, path, MARCH)
            self.simulator = HbmSimulator(path.read_bytes())

    def simulate(self) -> None:
        """The simulator gives the interpreter's integers."""
        name = self.interpreter.inputs[0].name
        for levels in self.levels:
            first, second = (e.run({name: levels}) for e in (self.interpreter, self.simulator))
            if not all(torch.equal(first[key], second[key]) for key in {**first, **second}):
                raise Failed('simulator and interpreter differ')

    def decode(self) -> None:
        """The stock head decodes integers and ``.hbm`` alike."""
        found = [self._stock(executable) for executable in (self.interpreter, self.simulator)]
        for left, right in zip(*found):
            if not all(np.array_equal(a, b) for a, b in zip(left, right)):
                raise Failed('the head decodes integers and .hbm to different boxes')
        self.decoded = found[1]
        self.boxes['int'] = min(len(scores) for _, scores, _ in self.decoded)
        if not self.boxes['int']:
            raise Failed('the head finds no box in the integer outputs')

    def _stock(self, executable: Any) -> List[Tuple[np.ndarray, ...]]:
        detector = ArtifactDetector(self.model, executable)
        results = []
        for image, sample in zip(self.images, self.batch.samples):
            found = detector(image, [sample.clone()])[0].pred_instances
            results.append(tuple(found[key].numpy() for key in ('bboxes', 'scores', 'labels')))
        return results

    def decode_on_the_host(self) -> None:
        """The numpy decoder finds the stock head's boxes.

        Random weights may give logits beyond what float32 scores tell apart. Which of the boxes
        with a score of 1 come first is not said anywhere, so both decode the same integers on
        smaller scales then.
        """
        executable, stock = self.simulator, self.decoded
        for divisor in SMALLER_SCALES:
            if min(distinct(scores) for _, scores, _ in stock) >= DISTINCT:
                break
            executable = Rescaled(self.simulator, divisor)
            stock = self._stock(executable)
        contract = contract_of(executable)
        name = executable.inputs[0].name
        height, width = self.shape
        for levels, expected in zip(self.levels, stock):
            outputs = {key: value.numpy() for key, value in executable.run({name: levels}).items()}
            compare_boxes(detect(outputs, contract, width, height), expected)


class Rescaled:
    """An executable whose outputs are read on smaller scales.

    Args:
        executable (HbmSimulator): What computes.
        divisor (float): Of every output's scale.
    """

    def __init__(self, executable: HbmSimulator, divisor: float) -> None:
        self.inputs, self.metadata, self.run = \
            executable.inputs, executable.metadata, executable.run
        self.outputs = [spec if spec.scale is None else replace(spec, scale=spec.scale / divisor)
                        for spec in executable.outputs]


def distinct(scores: np.ndarray) -> float:
    """Share of scores that differ from each other; 1 for none."""
    return len(np.unique(scores)) / max(len(scores), 1)


def compare_boxes(host: Any, stock: Tuple[np.ndarray, ...]) -> None:
    """Each box of the host is one of the stock head's, and none is left.

    The last ones may be others where more boxes have their score than were kept.

    Raises:
        Failed: Another number of boxes, or a box that the other does not have.
    """
    if len(host[1]) != len(stock[1]):
        raise Failed(f'the host finds {len(host[1])} boxes, the stock head {len(stock[1])}')
    left = np.ones(len(stock[1]), bool)
    for box, score, label in zip(*host):
        near = NEAR * max(1.0, np.abs(box).max() / 100)
        fits = left & (stock[2] == label) & (np.abs(stock[1] - score) <= NEAR_SCORE) \
            & (np.abs(stock[0] - box).max(1, initial=0) <= near)
        if fits.any():
            left[fits.argmax()] = False
        elif score > stock[1].min() + NEAR_SCORE:
            raise Failed(f'the host finds {box.round(2).tolist()} of class {label} with a score of '
                         f'{score:.4f}, which the stock head does not')
