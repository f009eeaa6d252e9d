"""What a data pipeline gives for a camera, as the inputs of an executable that converts it."""
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Optional

import torch
from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmengine.config import Config
from mmengine.runner import Runner
from torch import Tensor

from mmdet_bpu.datasets.camera_pictures import BYTES
from mmdet_bpu.engine.config_errors import present_files
from mmdet_bpu.engine.deploy_preprocessing import in_camera_colors
from mmdet_bpu.engine.settings import BpuSettings
from mmdet_bpu.engine.stage_names import BYTE_STAGES
from mmdet_bpu.errors import BpuError
from mmdet_bpu.executors.protocol import Executable
from mmdet_bpu.families.camera_format import camera_format
from mmdet_bpu.program.program import TensorSpec
from mmdet_bpu.runtime.camera_frame import CENTRED, plane_types
from mmdet_bpu.runtime.input_stage import takes_planes


@dataclass(frozen=True)
class CameraInput:
    """The inputs of an executable that takes planes.

    Attributes:
        specs (list[TensorSpec]): Plane by plane.
        camera (dict): ``preprocessing.camera`` of its contract.
    """
    specs: List[TensorSpec]
    camera: Dict[str, Any]

    @classmethod
    def of(cls, executable: Executable, given: Optional[Dict[str, Any]]
           ) -> Optional['CameraInput']:
        """The planes that an executable takes; None if it takes an image.

        Args:
            executable (Executable): Of any kind.
            given (dict, optional): ``format``, ``range`` and ``matrix`` of the bytes that it is fed
                with; None for pictures.

        Raises:
            BpuError: It is fed with something else than it takes, or its inputs are not those of
                its contract.
        """
        stage = executable.metadata.get('preprocessing') or {}
        if not isinstance(stage, dict) or not takes_planes(stage):
            if given is not None:
                raise BpuError(f'executable: expected one that takes what bpu.input_format says, '
                               f'{words_of(given)}, found one that takes an image; give the config '
                               'that it was made from')
            return None
        camera = stage['camera']
        if given is None or any(given[name] != camera.get(name) for name in given):
            raise BpuError(f'executable: it takes {words_of(camera)}, but bpu.input_format says '
                           f'{"pictures" if given is None else words_of(given)}; give the config '
                           'that it was made from')
        specs = list(executable.inputs)
        _, height, width, *_ = specs[0].shape if len(specs[0].shape) == 4 else (0, ) * 4
        expected = [(dtype, shape) for _, dtype, shape in
                    plane_types(camera['format'], height, width)]
        found = [(spec.dtype, tuple(spec.shape)) for spec in specs]
        if found != expected:
            raise BpuError(f'executable: expected the inputs {expected} of a camera that gives '
                           f'{camera["format"]}, found {found}')
        return cls(specs, camera)

    def tensors(self, picture: Tensor) -> Dict[str, Tensor]:
        """A picture of bytes as the inputs.

        Args:
            picture (Tensor): (3, H, W) or (1, H, W), whole numbers 0 to 255 of any dtype.

        Raises:
            BpuError: It has not the executable's shape.
        """
        whole = picture.to(torch.uint8).permute(1, 2, 0).unsqueeze(0).cpu().contiguous()
        height, width = self.specs[0].shape[1:3]
        if tuple(whole.shape[1:3]) != (height, width):
            raise BpuError(f'executable input {self.specs[0].name!r}: expected {height} x {width} '
                           f'px, found {tuple(whole.shape[1:3])}; set bpu.input_shape to '
                           f'{(height, width)}')
        if self.camera['format'] == 'yuv444':
            return {self.specs[0].name: (whole ^ CENTRED).view(torch.int8)}
        planes = [whole[..., :1], whole[:, ::2, ::2, 1:]]
        return {spec.name: plane.contiguous() for spec, plane in zip(self.specs, planes)}


def byte_inputs(cfg: Config, name: str, executable: Executable
                ) -> Optional[Iterator[Dict[str, Tensor]]]:
    """Inputs of an executable that takes planes, image by image; None for one that takes an image.

    Args:
        cfg (Config): A completed config of any stage.
        name (str): Of the dataloader whose images are given.
        executable (Executable): Of any kind.

    Raises:
        BpuError: The executable takes planes of another camera than the config's.
    """
    stage = executable.metadata.get('preprocessing') or {}
    if not isinstance(stage, dict) or not takes_planes(stage):
        return None
    camera = camera_format(cfg.bpu.get('input_format'))
    planes = CameraInput.of(executable, None if camera is None else camera.camera)
    with present_files(name):
        loader = Runner.build_dataloader(in_camera_colors(cfg[name], BYTES), seed=0)
    return (planes.tensors(picture) for batch in loader for picture in batch['inputs'])


def byte_camera(settings: BpuSettings) -> Optional[Dict[str, Any]]:
    """The camera whose bytes the data pipeline of a stage gives; None where it gives pictures."""
    camera = camera_format(settings.input_format)
    return None if camera is None or settings.stage not in BYTE_STAGES else camera.camera


def bytes_preprocessor() -> DetDataPreprocessor:
    """A data preprocessor that leaves bytes as they are, in float32."""
    return DetDataPreprocessor()


def words_of(camera: Dict[str, Any]) -> str:
    """A camera in a few words, for messages: ``nv12, full range, bt601``."""
    return f'{camera.get("format")}, {camera.get("range")} range, {camera.get("matrix")}'
