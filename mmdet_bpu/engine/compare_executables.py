"""Do two executables compute the same integers? On every test image, bit for bit."""
from itertools import islice
from typing import Any, Dict, Iterator, Optional

import torch
from mmengine.config import Config
from mmengine.runner import Runner
from torch import Tensor, nn

from mmdet_bpu.engine.artifact_detector import quantize_image
from mmdet_bpu.engine.camera_input import byte_inputs
from mmdet_bpu.engine.config_errors import present_files
from mmdet_bpu.executors.protocol import Executable
from mmdet_bpu.steps import with_bar


def integer_images(cfg: Config, detector: nn.Module, scale: float,
                   limit: Optional[int] = None) -> Iterator[Tensor]:
    """Test images of a completed config as the board gets them, ``(1, H, W, 3)`` int8.

    Args:
        cfg (Config): Its ``test_dataloader`` is read.
        detector (nn.Module): Its ``data_preprocessor`` normalises.
        scale (float): Scale of the integer image.
        limit (int, optional): At most that many. Defaults to all.
    """
    with present_files('test_dataloader'):
        loader = Runner.build_dataloader(cfg.test_dataloader, seed=0)
    count = 0
    for batch in loader:
        for image in detector.data_preprocessor(batch, False)['inputs']:
            if limit is not None and count == limit:
                return
            count += 1
            yield quantize_image(image, scale)


def compare_executables(cfg: Config, detector: nn.Module, first: Executable,
                        second: Executable, limit: Optional[int] = None) -> Dict[str, Any]:
    """Run both on the test images and compare every output tensor.

    Returns:
        dict: ``images``; ``equal``; ``differing``, a list of image index, output and how many of
        its elements differ.
    """
    fed = byte_inputs(cfg, 'test_dataloader', first)
    if fed is None:
        name, scale = first.inputs[0].name, first.inputs[0].scale
        fed = ({name: image} for image in integer_images(cfg, detector, scale, limit))
    images = list(islice(fed, limit))
    differing = []
    for index, image in enumerate(with_bar(images, 'images')):
        left, right = first.run(image), second.run(image)
        for output in {**left, **right}:
            a, b = left.get(output), right.get(output)
            if a is None or b is None or a.dtype != b.dtype or not torch.equal(a, b):
                count = -1 if a is None or b is None or a.shape != b.shape \
                    else int((a != b).sum())
                differing.append(dict(image=index, output=output, elements=count))
    return dict(images=len(images), equal=not differing, differing=differing)
