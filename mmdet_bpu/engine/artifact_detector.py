"""A detector whose network is an integer executable: what the board computes, inside mmengine."""
from typing import Any, Dict, List, Optional, Sequence

import torch
from mmdet.models.dense_heads import DETRHead
from mmdet.structures import DetDataSample
from mmengine.model import BaseModel
from torch import Tensor, nn

from mmdet_bpu.errors import BpuError

INT8_MIN, INT8_MAX = -128, 127


class ArtifactDetector(BaseModel):
    """Evaluate an executable with a stock detector's preprocessing and post-processing.

    Image by image: the stock data preprocessor normalises, the image is quantized to the
    executable's input scale, the executable runs on integers, its outputs are dequantized and go to
    the stock head's ``predict_by_feat``. None of the detector's own weights take part.

    Args:
        detector (nn.Module): A stock mmdet detector; its ``bbox_head`` and ``data_preprocessor``
            are used.
        executable (Any, optional): Has ``inputs``, ``outputs`` (name, shape, dtype, scale),
            ``metadata`` and ``run``. Defaults to None; :meth:`attach` sets it later.
    """

    def __init__(self, detector: nn.Module, executable: Optional[Any] = None) -> None:
        super().__init__(data_preprocessor=detector.data_preprocessor)
        self.bbox_head = detector.bbox_head
        if not isinstance(self.bbox_head, DETRHead):
            raise BpuError('evaluating an executable: expected a head of the DETR family, found '
                           f'{type(self.bbox_head).__name__}')
        self.executable = None
        if executable is not None:
            self.attach(executable)

    def attach(self, executable: Any) -> None:
        """Set the executable.

        Raises:
            BpuError: It does not take one int8 image.
        """
        inputs = list(executable.inputs)
        if len(inputs) != 1 or inputs[0].dtype != 'si8' or inputs[0].scale is None:
            found = ', '.join(f'{spec.name}: {spec.dtype} {tuple(spec.shape)}' for spec in inputs)
            raise BpuError(
                f'executable: expected one int8 image with a scale as input, found {found}')
        self.executable = executable

    def forward(self,
                inputs: Tensor,
                data_samples: List[DetDataSample],
                mode: str = 'predict') -> List[DetDataSample]:
        """Detect.

        Args:
            inputs (Tensor): Normalised images ``(N, 3, H, W)``.
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
            outputs = self.head_outputs(image)
            sample.pred_instances = self.bbox_head.predict_by_feat(
                *outputs, batch_img_metas=[sample.metainfo], rescale=True)[0]
        return data_samples

    @torch.no_grad()
    def head_outputs(self, image: Tensor) -> List[Tensor]:
        """Run one image; outputs as the head's ``forward`` returns them, of the last layer only.

        Args:
            image (Tensor): Normalised image ``(3, H, W)``.

        Returns:
            list[Tensor]: Each ``(1, 1, num_queries, C)``, float32: layers, images, queries,
            channels.

        Raises:
            BpuError: The image has not the executable's shape.
        """
        spec = self.executable.inputs[0]
        quantized = quantize_image(image, spec.scale)
        if tuple(quantized.shape) != tuple(spec.shape):
            raise BpuError(
                f'executable input {spec.name!r}: expected (N, H, W, C) {tuple(spec.shape)}, found '
                f'{tuple(quantized.shape)}; set bpu.input_shape to {tuple(spec.shape[1:3])}')
        results = self.executable.run({spec.name: quantized.cpu()})
        scales = {output.name: output.scale for output in self.executable.outputs}
        return [dequantize(results[name], scales[name]).to(image.device).unsqueeze(0)
                for name in self._output_names(scales)]

    def _output_names(self, scales: Dict[str, float]) -> Sequence[str]:
        """Names of the outputs in the head's order."""
        listed = self.executable.metadata.get('outputs')
        names = [entry['name'] if isinstance(entry, dict) else entry for entry in listed] \
            if listed else list(scales)
        unknown = [name for name in names if name not in scales]
        if unknown:
            raise BpuError(f'executable: metadata lists the outputs {names}, but there is no '
                           f'{", ".join(unknown)} among {", ".join(scales)}')
        return names


def quantize_image(image: Tensor, scale: float) -> Tensor:
    """Normalised float image to int8, as the board's preprocessing does it.

    ``q = clamp(rhe(x / scale), -128, 127)``, a float32 division as in the fake quantizer; rhe rounds
    to nearest, ties to even.

    Args:
        image (Tensor): ``(3, H, W)``, float32.
        scale (float): Scale of the executable's input.

    Returns:
        Tensor: ``(1, H, W, 3)``, int8.
    """
    scale = torch.tensor(scale, dtype=torch.float32, device=image.device)
    levels = torch.round(image.to(torch.float32) / scale).clamp(INT8_MIN, INT8_MAX)
    return levels.to(torch.int8).permute(1, 2, 0).unsqueeze(0).contiguous()


def dequantize(levels: Tensor, scale: float) -> Tensor:
    """Integers times their scale, in float32."""
    return levels.to(torch.float32) * torch.tensor(scale, dtype=torch.float32)
