"""The verbs of the command line as functions.

Most take a config (see :func:`load_config`) and paths, and return what they made. ``tools/*.py``
parse arguments and call these.

==================================  ====================================================
data                                :func:`pack`, :func:`verify`, :func:`make_digits`
training                            :func:`train`
is it any good, are they equal      :func:`evaluate`, :func:`compare_stages`
can it be deployed, what it costs   :func:`check_model`, :func:`sites_of`, :func:`count_flops`
how it is trained                   :func:`recipes_of`, :func:`recipe_lines`
deployment                          :func:`export`, :func:`deploy`
detection in pictures               :func:`infer`
==================================  ====================================================
"""
import mmdet_bpu.openmmlab  # noqa: F401  (before anything of OpenMMLab)

# isort: split
import mmdet_bpu.registration  # noqa: F401  (registers our modules)
from mmdet_bpu.apis.checks import CHECK_STEPS, check_model, count_flops, recipes_of, sites_of
from mmdet_bpu.apis.deployment import DEPLOY_STEPS, EXPORT_STEPS, deploy, export
from mmdet_bpu.apis.evaluation import compare_stages, evaluate
from mmdet_bpu.apis.models import (build_detector, deployable_detector, export_hbir, load_config,
                                   load_executable, load_quantized, metadata_of, settings_of)
from mmdet_bpu.apis.serving import infer, load_predictor
from mmdet_bpu.compiler.legality import refuse_errors
from mmdet_bpu.datasets.digits import make_digits
from mmdet_bpu.datasets.lmdb_packer import pack_coco as pack
from mmdet_bpu.datasets.lmdb_verify import verify_database as verify
from mmdet_bpu.datasets.packing_report import report_lines
from mmdet_bpu.engine.recipe_report import recipe_lines
from mmdet_bpu.engine.training import train
from mmdet_bpu.lowering.artifact_formats import load_artifact
from mmdet_bpu.lowering.artifacts import to_integers, write_export

__all__ = ['CHECK_STEPS', 'DEPLOY_STEPS', 'EXPORT_STEPS', 'build_detector', 'check_model',
           'compare_stages', 'count_flops', 'deploy', 'deployable_detector', 'evaluate', 'export',
           'export_hbir', 'infer', 'load_artifact', 'load_config', 'load_executable',
           'load_predictor', 'load_quantized', 'make_digits', 'metadata_of', 'pack',
           'recipe_lines', 'recipes_of', 'refuse_errors', 'report_lines', 'settings_of', 'sites_of', 'to_integers', 'train',
           'verify', 'write_export']
