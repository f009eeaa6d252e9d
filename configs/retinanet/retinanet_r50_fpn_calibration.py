"""Calibration of RetinaNet: activation scales from 100 batches, MSE observer."""
_base_ = './retinanet_r50_fpn_float.py'

bpu = dict(stage='calibration')

# Never stepped: a runner with a training loop has to have one.
optim_wrapper = dict(_delete_=True, type='OptimWrapper', optimizer=dict(type='SGD', lr=0.0))
param_scheduler = None

train_cfg = dict(_delete_=True, type='CalibrationLoop')
val_cfg = dict(type='QuantValLoop')

default_hooks = dict(
    checkpoint=dict(
        _delete_=True,
        type='CheckpointHook',
        interval=1,
        save_optimizer=False,
        save_param_scheduler=False))
