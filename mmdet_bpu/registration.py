"""Register everything of ours with mmengine; configs import it through ``custom_imports``."""
import mmdet_bpu.openmmlab  # noqa: F401  (before anything of OpenMMLab)

from mmdet.utils import register_all_modules as register_mmdet

import mmdet_bpu.datasets  # noqa: F401
import mmdet_bpu.engine.hooks  # noqa: F401
import mmdet_bpu.engine.loops  # noqa: F401
import mmdet_bpu.engine.runner  # noqa: F401
import mmdet_bpu.engine.seeded_data  # noqa: F401
from mmdet_bpu.families.stock_repairs import apply_repairs

register_mmdet(init_default_scope=False)
apply_repairs()
