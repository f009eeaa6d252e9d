"""Reading a config, first alone: a wrong one is refused before mmdet is imported."""
from typing import Optional, Sequence

from mmengine.config import Config

from mmdet_bpu.engine.config_files import read_config
from mmdet_bpu.engine.config_options import parse_options
from mmdet_bpu.engine.config_structure import check_structure


def load_config(config: str, stage: Optional[str] = None,
                cfg_options: Sequence[str] = ()) -> Config:
    """Read a config and put a stage over it.

    Args:
        config (str): Path of a config, or ``mmdet::...`` of an installed package.
        stage (str, optional): See :func:`mmdet_bpu.engine.stages.load_config`.
        cfg_options (Sequence[str]): Overrides, each KEY=VALUE; they win over the stage.

    Raises:
        BpuError: No such config, it cannot be parsed, no such stage, or a wrong override.
    """
    options = parse_options(cfg_options or ())
    cfg = read_config(config)
    check_structure(cfg)
    import mmdet_bpu.registration  # noqa: F401
    from mmdet_bpu.engine.stages import with_stage
    return with_stage(cfg, config, stage, options)
