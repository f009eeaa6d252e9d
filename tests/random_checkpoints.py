"""Checkpoints of a detector with random weights, for tests that look at no accuracy."""
from pathlib import Path
from typing import Dict

import torch


def random_checkpoints_of(cfg, folder: Path) -> Dict[str, Path]:
    """Stage (float, calibration) -> checkpoint of the same random weights.

    Args:
        cfg (Config): Of stage calibration, completed.
        folder (Path): Where they are written.
    """
    from mmdet_bpu import apis
    from mmdet_bpu.analysis.model_check import observe_random_image, set_random_weights
    from mmdet_bpu.quantization import prepare
    settings = apis.settings_of(cfg)
    model = apis.build_detector(cfg)
    set_random_weights(model)
    paths = {}
    for stage in ('float', 'calibration'):
        if stage == 'calibration':
            prepare(model, settings)
            observe_random_image(model)
        paths[stage] = folder / f'{stage}.pth'
        torch.save(dict(meta=dict(bpu_stage=stage), state_dict=model.state_dict()), paths[stage])
    return paths
