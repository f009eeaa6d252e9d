"""The verbs of the command line as functions.

Most take a config (see :func:`load_config`) and paths, and return what they made. ``tools/*.py``
parse arguments and call these.

==================================  ====================================================
data                                :func:`pack`, :func:`verify`, :func:`make_digits`
training                            :func:`train`
is it any good, are they equal      :func:`evaluate`, :func:`compare_stages`
where accuracy is lost              :func:`compare`, :func:`sensitivity`
can it be deployed, what it costs   :func:`check_model`, :func:`sites_of`, :func:`count_flops`,
                                    :func:`compare_costs`
how it is trained                   :func:`recipes_of`, :func:`recipe_lines`
dtypes that are worth their cost    :func:`search`
deployment                          :func:`export`, :func:`export_onnx`, :func:`deploy`
detection in pictures               :func:`infer`
==================================  ====================================================
"""
import mmdet_bpu.openmmlab  # noqa: F401  (before anything of OpenMMLab)
import importlib
from typing import Any, List

_HOMES = {
    'mmdet_bpu.analysis.search_result': ('Bound', ),
    'mmdet_bpu.analysis.search_files': ('write_search', ),
    'mmdet_bpu.analysis.sensitivity_files': ('write_sensitivity', ),
    'mmdet_bpu.apis.analysis': ('load_with_statistics', 'search', 'sensitivity'),
    'mmdet_bpu.apis.checks': ('CHECK_STEPS', 'COMPARE_STEPS', 'check_model', 'compare_costs',
                              'count_flops', 'recipes_of', 'sites_of'),
    'mmdet_bpu.apis.configs': ('load_config', ),
    'mmdet_bpu.apis.deployment': ('DEPLOY_STEPS', 'EXPORT_STEPS', 'deploy', 'export',
                                  'export_onnx'),
    'mmdet_bpu.apis.evaluation': ('compare_stages', 'evaluate'),
    'mmdet_bpu.apis.models': ('build_detector', 'deployable_detector', 'export_hbir',
                              'load_executable', 'load_quantized', 'metadata_of', 'settings_of'),
    'mmdet_bpu.apis.serving': ('infer', 'load_predictor'),
    'mmdet_bpu.apis.quant_comparison': ('compare', ),
    'mmdet_bpu.apis.packing': ('make_digits', 'pack', 'report_lines', 'verify'),
    'mmdet_bpu.apis.training': ('recipe_lines', 'train'),
    'mmdet_bpu.compiler.legality': ('refuse_errors', ),
    'mmdet_bpu.lowering.artifact_formats': ('load_artifact', ),
    'mmdet_bpu.lowering.artifacts': ('to_integers', 'write_export'),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    """Import a verb when it is asked for: reading a config or packing images needs no detector."""
    if name not in _HOME_OF:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    value = globals()[name] = getattr(importlib.import_module(_HOME_OF[name]), name)
    return value


def __dir__() -> List[str]:
    return sorted({*globals(), *__all__})
