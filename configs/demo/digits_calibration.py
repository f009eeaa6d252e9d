"""Calibration of the digits detector: ``--stage calibration`` over the float config, fewer batches.

Starts from the float checkpoint (``load_from``).
"""
_base_ = './digits_float.py'

bpu = dict(stage='calibration', calibration=dict(num_batches=25))  # 200 images
train_dataloader = dict(batch_size=8)

optim_wrapper = dict(_delete_=True, type='OptimWrapper', optimizer=dict(type='SGD', lr=0.0))
param_scheduler = None
train_cfg = dict(_delete_=True, type='CalibrationLoop')
val_cfg = dict(_delete_=True, type='QuantValLoop')
default_hooks = dict(
    checkpoint=dict(
        _delete_=True,
        type='CheckpointHook',
        interval=1,
        save_optimizer=False,
        save_param_scheduler=False))
