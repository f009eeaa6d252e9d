"""Hooks: one per file."""
from mmdet_bpu.engine.hooks.batch_norm_hook import BatchNormHook
from mmdet_bpu.engine.hooks.distillation_hook import DistillationHook
from mmdet_bpu.engine.hooks.due_validation_hook import DueValidationHook
from mmdet_bpu.engine.hooks.plain_checkpoint_hook import PlainCheckpointHook
from mmdet_bpu.engine.hooks.quant_monitor_hook import QuantMonitorHook
from mmdet_bpu.engine.hooks.quant_state_hook import QuantStateHook
from mmdet_bpu.engine.hooks.random_state_hook import RandomStateHook
from mmdet_bpu.engine.hooks.scales_hook import ScalesHook
from mmdet_bpu.engine.hooks.stage_metric_hook import StageMetricHook
from mmdet_bpu.engine.hooks.test_progress_hook import TestProgressHook

__all__ = ['BatchNormHook', 'DistillationHook', 'DueValidationHook', 'PlainCheckpointHook',
           'QuantMonitorHook', 'QuantStateHook', 'RandomStateHook', 'ScalesHook', 'StageMetricHook',
           'TestProgressHook']
