"""Checkpoints hold plain data, the quantized graph, and say which stage wrote them."""
import logging
from typing import Any

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS

from mmdet_bpu.engine.plain_data import to_plain
from mmdet_bpu.engine.stage_names import CALIBRATION
from mmdet_bpu.engine.trained_colors import KEY as COLORS
from mmdet_bpu.engine.trained_colors import trained_colors
from mmdet_bpu.errors import BpuError
from mmdet_bpu.graph.saved_graph import KEY
from mmdet_bpu.quantization import saved_form, saved_norms, saved_statistics


@HOOKS.register_module()
class PlainCheckpointHook(Hook):
    """Turn a checkpoint into plain data just before it is written.

    The message hub may hold anything that a metric or a hook has put there. What of it has no plain
    form is left out with a warning; elsewhere that is an error. Reading undoes the conversion
    (:func:`mmdet_bpu.engine.weights.read_checkpoint`). A prepared detector's quantized graph goes with
    its weights (:mod:`mmdet_bpu.graph.saved_graph`), what a calibration has seen
    (:mod:`mmdet_bpu.quantization.saved_statistics`), and the norms that were folded before it
    (:mod:`mmdet_bpu.quantization.saved_norms`).

    Args:
        stage (str): Stage that is written in ``meta['bpu_stage']``.
        input_format (str | dict, optional): ``bpu.input_format``, which says the colours that are
            written in ``meta['bpu_colors']``.
    """

    # After every other hook, so that what they add is converted too.
    priority = 'LOWEST'

    def __init__(self, stage: str, input_format: Any = None) -> None:
        self.stage, self.colors = stage, trained_colors(input_format)

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Convert in place."""
        checkpoint['meta'].update({'bpu_stage': self.stage, COLORS: self.colors})
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if hasattr(model, 'quant'):
            checkpoint[KEY] = saved_form(model)
            if self.stage == CALIBRATION and model.quant.statistics is not None:
                checkpoint[saved_statistics.KEY] = saved_statistics.to_plain(model)
            if self.stage == CALIBRATION and (model.quant.norms or not model.quant.folded):
                checkpoint[saved_norms.KEY] = saved_norms.to_plain(model.quant.norms)
        info = checkpoint.get('message_hub', {}).get('runtime_info', {})
        for key in list(info):
            try:
                info[key] = to_plain(info[key], f"message_hub['runtime_info'][{key!r}]")
            except BpuError as error:
                print_log(f'not saved: {error}', logger='current', level=logging.WARNING)
                del info[key]
        for key in list(checkpoint):
            checkpoint[key] = to_plain(checkpoint[key], f'checkpoint[{key!r}]')
