"""What quantization did to a checkpoint, over validation images: tensors, outputs, detections."""
from dataclasses import dataclass, field
from typing import Any, Dict, Iterator, List, Optional, Sequence

import numpy as np
from mmengine import fileio
from torch import Tensor, nn
from torch.utils.data import DataLoader
from xdsl.dialects.builtin import ModuleOp

from mmdet_bpu.analysis.detection_change import DetectionChange, detection_change
from mmdet_bpu.analysis.output_agreement import OutputAgreement
from mmdet_bpu.analysis.pictures import Detections, draw, side_by_side
from mmdet_bpu.analysis.quant_comparison import QuantComparison
from mmdet_bpu.analysis.quant_findings import findings
from mmdet_bpu.datasets.decoding import DecodeError, decode_image
from mmdet_bpu.engine.artifact_detector import dequantize, quantize_image
from mmdet_bpu.engine.head_decoding import HeadDecoding
from mmdet_bpu.engine.val_images import images_of
from mmdet_bpu.errors import BpuError
from mmdet_bpu.executors.interpreter import Interpreter
from mmdet_bpu.executors.protocol import Executable
from mmdet_bpu.hbir.integer_program import program_from_module
from mmdet_bpu.hbir.passes.conversion import Conversion
from mmdet_bpu.quantization import quantization_of
from mmdet_bpu.steps import progress_bar

FLOAT, QUANTIZED, INTEGERS = 'float', 'quantized', 'integers'
"""Titles of the three models whose detections are drawn side by side."""


@dataclass
class ComparedImage:
    """One image as the models saw it.

    Attributes:
        index (int): Its number, from 0.
        metainfo (dict): Of its data sample.
        sqnr_db (float | None): Of the output that suffered most, dB.
        change (DetectionChange): From the float detections to the quantized ones.
        int_change (DetectionChange): From those to the integers'.
        detections (dict[str, Detections]): By the title of the model.
    """
    index: int
    metainfo: Dict[str, Any]
    sqnr_db: Optional[float]
    change: DetectionChange
    int_change: DetectionChange
    detections: Dict[str, Detections]

    @property
    def name(self) -> str:
        """Path of the picture, or its id."""
        return str(self.metainfo.get('img_path') or self.metainfo.get('img_id', self.index))

    def as_row(self) -> Dict[str, Any]:
        """Plain form: name, SQNR, change, boxes lost and added."""
        return dict(index=self.index, image=self.name, output_sqnr_db=self.sqnr_db,
                    score_change=self.change.change, lost=self.change.lost,
                    added=self.change.added, int_score_change=self.int_change.change,
                    int_lost=self.int_change.lost, int_added=self.int_change.added)


@dataclass
class QuantAnalysis:
    """Everything that was measured.

    Attributes:
        comparison (QuantComparison): Tensors and outputs.
        images (list[ComparedImage]): In the order of the data.
        integers (OutputAgreement): Outputs of the integers against the quantized model's.
        against (OutputAgreement, optional): Outputs of another executable against the integers.
    """
    comparison: QuantComparison
    integers: OutputAgreement
    against: Optional[OutputAgreement] = None
    images: List[ComparedImage] = field(default_factory=list)

    def as_dict(self) -> Dict[str, Any]:
        """Everything but histograms and pictures, as plain data."""
        tensors = self.comparison.tensors()
        return dict(
            reordered=self.comparison.walk.selects,
            outputs=self.comparison.output_rows(), int_outputs=self.integers.rows(),
            against_outputs=None if self.against is None else self.against.rows(),
            findings=findings(tensors), tensors=tensors, constants=self.comparison.constants(),
            images=[image.as_row() for image in self.images])

    def worst_images(self, count: int) -> List[ComparedImage]:
        """Images whose detections changed most; among equals those with the poorest outputs."""
        ranked = sorted(self.images, key=lambda image: (
            -image.change.change, float('inf') if image.sqnr_db is None else image.sqnr_db))
        return ranked[:count]


def analyze(loader: DataLoader, model: nn.Module, conversion: Conversion, rows: List[dict],
            images: int, int_images: int, score_thr: float, kernels: str,
            floats: Optional[ModuleOp] = None, against: Optional[Executable] = None,
            planes: Optional[Iterator[Dict[str, Tensor]]] = None) -> QuantAnalysis:
    """Run the first validation images through the float, the quantized and the integer network.

    Args:
        loader (DataLoader): See :func:`mmdet_bpu.engine.val_images.val_loader`.
        model (nn.Module): The prepared detector: it normalises, and its head decodes.
        conversion (Conversion): Of its HBIR.
        rows (list[dict]): Report of its quantized graph.
        images (int): At most that many.
        int_images (int): Images whose integers are compared op by op.
        score_thr (float): Boxes below are no objects.
        kernels (str): Kernel set of the integers.
        floats (ModuleOp, optional): HBIR with the weights of another float checkpoint.
        against (Executable, optional): What else is held against the integers.
        planes (Iterator, optional): Its inputs, image by image, where it converts a camera's.

    Raises:
        BpuError: No image, images of another shape, or ``against`` is of another network.
    """
    comparison = QuantComparison(conversion, rows, floats)
    interpreter = Interpreter(program_from_module(conversion.result), kernels=kernels)
    result = QuantAnalysis(comparison, OutputAgreement(interpreter.outputs))
    if against is not None:
        kinds = ('outputs', ) if planes is not None else ('inputs', 'outputs')
        refuse_another_model(interpreter, against, kinds)
        result.against = OutputAgreement(interpreter.outputs)
    network, = quantization_of(model).networks
    decoding = HeadDecoding(model, network.graph.output_tree)
    count = min(images, len(loader.dataset))
    with progress_bar('comparing', count) as advance:
        for index, (image, sample) in enumerate(images_of(loader, model, count)):
            levels = {interpreter.inputs[0].name:
                      quantize_image(image, interpreter.inputs[0].scale)}
            channels_last = image.permute(1, 2, 0).unsqueeze(0).contiguous()
            floating, quantized, ratio = comparison.add(channels_last)
            integers = interpreter.run(levels)
            real = dequantized(interpreter, integers)
            result.integers.add(index, quantized, real)
            if against is not None:
                given = levels if planes is None else next(planes)
                result.against.add(index, real, dequantized(against, against.run(given)))
            if index < int_images:
                comparison.add_integers(channels_last)
            if comparison.walk.selects:
                floating = comparison.walk.floats(channels_last)
            found = {title: decoding.detections(outputs, sample.metainfo) for title, outputs in
                     ((FLOAT, floating), (QUANTIZED, quantized), (INTEGERS, real))}
            result.images.append(ComparedImage(
                index, dict(sample.metainfo), ratio,
                detection_change(found[FLOAT], found[QUANTIZED], score_thr),
                detection_change(found[QUANTIZED], found[INTEGERS], score_thr), found))
            advance(1)
    if not result.images:
        raise BpuError('field val_dataloader: expected images to compare on, found none in it')
    return result


def dequantized(executable: Executable, integers: Dict[str, Tensor]) -> Dict[str, Tensor]:
    """Outputs of an executable in float32, by name."""
    return {spec.name: dequantize(integers[spec.name], spec.scale) for spec in executable.outputs}


def refuse_another_model(expected: Executable, found: Executable,
                         kinds: Sequence[str] = ('inputs', 'outputs')) -> None:
    """Raise BpuError unless two executables take and give tensors of the same names and forms."""
    for kind in kinds:
        forms = [{spec.name: (tuple(spec.shape), spec.dtype, spec.scale)
                  for spec in getattr(each, kind)} for each in (expected, found)]
        if forms[0] == forms[1]:
            continue
        name = next(n for n in {**forms[0], **forms[1]} if forms[0].get(n) != forms[1].get(n))
        raise BpuError(f'parameter against: its {kind} are not those of the checkpoint: {name} is '
                       f'{_form(forms[0].get(name))} there, {_form(forms[1].get(name))} in the '
                       'artefact; give one that was made from this checkpoint')


def _form(form: Optional[tuple]) -> str:
    if form is None:
        return 'absent'
    shape, dtype, scale = form
    return f'{dtype} ({", ".join(map(str, shape))}) of scale {scale}'


def drawn(image: ComparedImage, classes: List[str], score_thr: float) -> Optional[np.ndarray]:
    """The picture with each model's detections side by side; None if it cannot be read.

    Returns:
        np.ndarray: (height, width, 3) uint8, blue first.
    """
    path = image.metainfo.get('img_path')
    if path is None:
        return None
    try:
        picture = decode_image(fileio.get(path), 'color', 'cv2')
    except (OSError, DecodeError, BpuError):
        return None
    return side_by_side([(title, draw(picture, found.above(score_thr), classes))
                         for title, found in image.detections.items()])
