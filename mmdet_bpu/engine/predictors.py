"""What detects in one picture: a detector with its config, or an artefact alone."""
import copy
from typing import Any, Dict, List, Union

import numpy as np
import torch
from mmcv.transforms import Compose
from mmdet.registry import TRANSFORMS
from mmengine.config import Config
from torch import nn

from mmdet_bpu.analysis.pictures import Detections
from mmdet_bpu.datasets.camera_pictures import BYTES, FRAME
from mmdet_bpu.engine.deploy_preprocessing import in_camera_colors
from mmdet_bpu.errors import BpuError
from mmdet_bpu.executors.protocol import Executable
from mmdet_bpu.families.picture_format import agreed_camera, input_channels, picture_format
from mmdet_bpu.runtime.camera import Nv12Frame, as_picture, planes_of
from mmdet_bpu.runtime.camera_frame import picture_shape
from mmdet_bpu.runtime.contract import check_contract
from mmdet_bpu.runtime.detections import detect
from mmdet_bpu.runtime.input_stage import network_inputs, picture_channels, refuse_frame
from mmdet_bpu.runtime.picture_check import check_picture


class DetectorPredictor:
    """A detector with the test pipeline of its config.

    Args:
        model (nn.Module): Detector in eval mode, float, quantized, or of an artefact.
        cfg (Config): Completed config.
        classes (list[str]): Class names.
        title (str): What pictures are titled with.
    """

    def __init__(self, model: nn.Module, cfg: Config, classes: List[str], title: str) -> None:
        self.model, self.classes, self.title = model.eval(), classes, title
        self.channels, self.format = input_channels(cfg), picture_format(cfg)
        camera = agreed_camera(cfg)
        self.camera = None if camera is None else camera.camera
        steps = picture_pipeline(cfg)
        if getattr(model, 'planes', None) is not None:  # an artefact that converts is given bytes
            steps = in_camera_colors(steps, BYTES)
        self.pipeline = Compose([TRANSFORMS.build(step) for step in steps])

    @torch.no_grad()
    def predict(self, image: Union[np.ndarray, Nv12Frame]) -> Detections:
        """Detect in a (height, width, 3) uint8 picture, blue first, or in a camera's frame.

        Raises:
            BpuError: It is no such picture, or a frame for a detector that takes pictures.
        """
        data = self.pipeline(self._given(image))
        found = self.model.test_step(dict(
            inputs=[data['inputs']], data_samples=[data['data_samples']]))[0].pred_instances
        order = torch.argsort(found.scores, descending=True, stable=True)
        return Detections(*(found[name][order].cpu().numpy()
                            for name in ('bboxes', 'scores', 'labels')))


    def _given(self, image: Union[np.ndarray, Nv12Frame]) -> Dict[str, Any]:
        """What the pipeline begins with."""
        if isinstance(image, Nv12Frame):
            refuse_frame(self.camera, self.format)
            # Only its size counts where the frame itself is resized.
            seen = as_picture(planes_of(image, self.camera), self.camera)
            return dict(img=seen, img_id=0, **{FRAME: image})
        check_picture(image, self.channels, self.format)
        if self.format == 'gray':
            image = picture_channels(image, self.format)
        return dict(img=image, img_id=0)


class ArtifactPredictor:
    """An executable with nothing but its own metadata.

    Args:
        executable (Executable): See :func:`mmdet_bpu.apis.load_artifact`.
        title (str): What pictures are titled with.

    Raises:
        BpuError: The artefact does not say how it is fed and read, or no decoder can read it.
    """

    def __init__(self, executable: Executable, title: str) -> None:
        self.executable, self.title = executable, title
        self.contract = contract_of(executable)
        check_contract(self.contract)
        self.classes = self.contract['classes']
        self.camera = self.contract['preprocessing'].get('camera')

    def predict(self, image: Union[np.ndarray, Nv12Frame]) -> Detections:
        """Detect in a (height, width, 3) uint8 picture, blue first, or in a camera's frame.

        Raises:
            BpuError: It is no such picture, or a frame for a network that takes pictures.
        """
        outputs = self.executable.run({name: torch.from_numpy(value) for name, value in
                                       network_inputs(image, self.contract).items()})
        height, width = picture_shape(image)
        return Detections(*detect(
            {key: value.numpy() for key, value in outputs.items()}, self.contract, width, height))


def contract_of(executable: Executable) -> Dict[str, Any]:
    """Everything that a host needs to feed an artefact and to read its outputs.

    Returns:
        dict: The artefact's metadata with ``inputs`` and ``outputs``: name, shape, dtype, scale.

    Raises:
        BpuError: The metadata lacks a part.
    """
    missing = [key for key in ('preprocessing', 'postprocessing', 'classes')
               if key not in executable.metadata]
    if missing:
        raise BpuError(f'the artefact has no {", ".join(missing)} in its metadata; expected a file '
                       'made by tools/export_hbir.py or tools/deploy_bpu.py')
    specs = {key: [dict(name=spec.name, shape=list(spec.shape), dtype=spec.dtype, scale=spec.scale)
                   for spec in getattr(executable, key)] for key in ('inputs', 'outputs')}
    return dict(executable.metadata, **specs)


def picture_pipeline(cfg: Config) -> List[dict]:
    """Test pipeline of a config for pictures in memory: no loading from disk, no annotations.

    Raises:
        BpuError: The config has no test or validation pipeline.
    """
    dataset = (cfg.get('test_dataloader') or cfg.get('val_dataloader') or {}).get('dataset')
    while dataset is not None and dataset.get('dataset') is not None:
        dataset = dataset['dataset']
    if dataset is None or dataset.get('pipeline') is None:
        raise BpuError('field test_dataloader.dataset.pipeline: expected the transforms of a '
                       'picture, found none')
    steps = [dict(type='mmdet.LoadImageFromNDArray')]
    for step in copy.deepcopy(list(dataset['pipeline'])):
        kind = step['type'] if isinstance(step['type'], str) else step['type'].__name__
        if not kind.rpartition('.')[2].startswith('Load'):
            steps.append(step)
    return steps
