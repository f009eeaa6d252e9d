"""Evaluate a stage: float and quantized models, or an integer executable."""
from typing import Dict, Optional

from mmengine.config import Config
from mmengine.model import is_model_wrapper

from mmdet_bpu.engine.config_errors import refused_config
from mmdet_bpu.engine.hooks import TestProgressHook
from mmdet_bpu.engine.runner import BPURunner
from mmdet_bpu.executors.protocol import Executable
from mmdet_bpu.kernels.registry import description


def evaluate(cfg: Config, executable: Optional[Executable] = None) -> Dict[str, float]:
    """Metrics of the config's test data.

    Args:
        cfg (Config): A config with a stage, ``work_dir`` and, for float, calibration and qat, with
            ``load_from``.
        executable (Executable, optional): What runs in the stages int and hbm. Defaults to None.

    Returns:
        dict: Metric names to values: the plain names, and each once more under its stage.
    """
    with refused_config(cfg):
        runner = BPURunner.from_cfg(cfg)
        if executable is not None:
            model = runner.model.module if is_model_wrapper(runner.model) else runner.model
            model.attach(executable)
            runner.logger.info(f'integers by kernels: {description(executable.kernel_counts)}')
        progress = TestProgressHook()
        runner.register_hook(progress)
        try:
            return runner.test()
        finally:
            progress.close()
