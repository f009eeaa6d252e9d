"""Training a stage, and how it is trained."""
import mmdet_bpu.registration  # noqa: F401,I001  (registers our modules)

from mmdet_bpu.engine.recipe_report import recipe_lines
from mmdet_bpu.engine.training import train

__all__ = ['recipe_lines', 'train']
