"""A detector whose network is an integer executable: what the board computes, inside mmengine."""
from typing import Any, Dict, List, Optional

import torch
from mmdet.models.utils import samplelist_boxtype2tensor
from mmdet.structures import DetDataSample
from mmengine.model import BaseModel
from torch import Tensor, nn

from mmdet_bpu.engine.camera_input import CameraInput, bytes_preprocessor
from mmdet_bpu.errors import BpuError
from mmdet_bpu.executors.protocol import Executable
from mmdet_bpu.families.base import FAMILIES
from mmdet_bpu.families.contract import decoding_in, output_tree_in
from mmdet_bpu.families.output_tree import Tree

INT8_MIN, INT8_MAX = -128, 127


class ArtifactDetector(BaseModel):
    """Evaluate an executable with a stock detector's preprocessing and post-processing.

    Image by image: the stock data preprocessor normalises, the image is quantized to the
    executable's input scale, the executable runs on integers, its outputs are dequantized, put back
    in the head's nesting by the detector's family, and go to the stock head's ``predict_by_feat``.
    None of the detector's own weights take part, except what its head decodes with.

    An executable that converts a camera's planes is given these instead: its pictures come as the
    camera's bytes (:class:`mmdet_bpu.datasets.CameraResize`), and nothing normalises them.

    Args:
        detector (nn.Module): A stock mmdet detector; its ``bbox_head`` and ``data_preprocessor``
            are used.
        executable (Executable, optional): What computes the head's outputs. Defaults to None;
            :meth:`attach` sets it later.
        camera (dict, optional): ``preprocessing.camera`` of what the data pipeline gives bytes for.
            Defaults to None: it gives pictures.

    Raises:
        BpuError: The detector has no head that decodes.
    """

    def __init__(self, detector: nn.Module, executable: Optional[Executable] = None,
                 camera: Optional[Dict[str, Any]] = None) -> None:
        super().__init__(data_preprocessor=detector.data_preprocessor)
        self.family = FAMILIES.of(detector)
        self.bbox_head = detector.bbox_head
        if not hasattr(self.bbox_head, 'predict_by_feat'):
            raise BpuError('evaluating an executable: expected a head with predict_by_feat, found '
                           f'{type(self.bbox_head).__name__}')
        self.executable = None
        self.camera, self.planes = camera, None
        if camera is not None:
            self.data_preprocessor = bytes_preprocessor()
        if executable is not None:
            self.attach(executable)

    def attach(self, executable: Executable) -> None:
        """Set the executable.

        Raises:
            BpuError: It takes neither one int8 image nor what the camera of the data pipeline
                gives, its outputs are not those that its metadata name, or it was made from a
                detector with another head.
        """
        inputs = list(executable.inputs)
        planes = CameraInput.of(executable, self.camera)
        if planes is None and (len(inputs) != 1 or inputs[0].dtype != 'si8'
                               or inputs[0].scale is None):
            found = ', '.join(f'{spec.name}: {spec.dtype} {tuple(spec.shape)}' for spec in inputs)
            raise BpuError(
                f'executable: expected one int8 image with a scale as input, found {found}')
        head, decoding = type(self.bbox_head).__name__, decoding_in(executable.metadata)
        if decoding.get('family', self.family.name) != self.family.name \
                or decoding.get('head', head) != head:
            raise BpuError(
                'executable: it was made from a detector whose head is a '
                f'{decoding.get("head", decoding["family"])}, but the config has a {head}; give '
                'the config that it was made from')
        self.scales: Dict[str, float] = {spec.name: spec.scale for spec in executable.outputs}
        self.output_tree: Tree = output_tree_in(executable.metadata, list(self.scales))
        self.executable, self.planes = executable, planes

    def forward(self,
                inputs: Tensor,
                data_samples: List[DetDataSample],
                mode: str = 'predict') -> List[DetDataSample]:
        """Detect.

        Args:
            inputs (Tensor): Normalised images ``(N, C, H, W)``.
            data_samples (list[DetDataSample]): Their metadata.
            mode (str): Only ``'predict'``: an executable has no losses.

        Returns:
            list[DetDataSample]: The samples with ``pred_instances`` in original image coordinates.
        """
        if self.executable is None:
            raise RuntimeError('no executable attached')
        if mode != 'predict':
            raise RuntimeError(f'an executable only predicts, asked for mode {mode!r}')
        for image, sample in zip(inputs, data_samples):
            sample.pred_instances = self.family.predict(
                self.bbox_head, self.head_outputs(image), [sample.metainfo])[0]
        samplelist_boxtype2tensor(data_samples)
        return data_samples

    @torch.no_grad()
    def head_outputs(self, image: Tensor) -> List[Any]:
        """Run one image; outputs as the head's ``predict_by_feat`` takes them.

        Args:
            image (Tensor): Normalised image ``(C, H, W)``, or the bytes of a camera.

        Returns:
            list: Float32 tensors for one image, nested as the family has them: of a DETR each
            ``(1, 1, queries, C)`` (layers, images, queries, channels), of a dense head lists of
            ``(1, C, H, W)``, one per level.

        Raises:
            BpuError: The image has not the executable's shape.
        """
        if self.planes is not None:
            given = self.planes.tensors(image)
        else:
            given = self._quantized(image)
        results = self.executable.run(given)
        return self.family.restore(self.output_tree, {
            name: dequantize(results[name], scale).to(image.device)
            for name, scale in self.scales.items()})

    def _quantized(self, image: Tensor) -> Dict[str, Tensor]:
        spec = self.executable.inputs[0]
        quantized = quantize_image(image, spec.scale)
        if tuple(quantized.shape) != tuple(spec.shape):
            raise BpuError(
                f'executable input {spec.name!r}: expected (N, H, W, C) {tuple(spec.shape)}, found '
                f'{tuple(quantized.shape)}; set bpu.input_shape to {tuple(spec.shape[1:3])}')
        return {spec.name: quantized.cpu()}


def quantize_image(image: Tensor, scale: float) -> Tensor:
    """Normalised float image to int8, as the board's preprocessing does it.

    ``q = clamp(rhe(x / scale), -128, 127)``, a float32 division as in the fake quantizer; rhe rounds
    to nearest, ties to even.

    Args:
        image (Tensor): ``(C, H, W)``, float32.
        scale (float): Scale of the executable's input.

    Returns:
        Tensor: ``(1, H, W, C)``, int8.
    """
    scale = torch.tensor(scale, dtype=torch.float32, device=image.device)
    levels = torch.round(image.to(torch.float32) / scale).clamp(INT8_MIN, INT8_MAX)
    return levels.to(torch.int8).permute(1, 2, 0).unsqueeze(0).contiguous()


def dequantize(levels: Tensor, scale: float) -> Tensor:
    """Integers times their scale, in float32."""
    return levels.to(torch.float32) * torch.tensor(scale, dtype=torch.float32)
