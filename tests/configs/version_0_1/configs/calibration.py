"""Calibration of the stock Deformable DETR: activation scales from 100 batches, MSE observer.

This text is also what ``--stage calibration`` puts over any mmdet config. Training images go
through the validation transforms at ``bpu.input_shape``; the runner rewrites the data pipelines.
Starts from a float checkpoint: ``load_from``, or the newest one in the float stage's folder beside
this run's.
"""
_base_ = 'mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py'

custom_imports = dict(imports=['mmdet_bpu.registration'], allow_failed_imports=False)
runner_type = 'BPURunner'
bpu = dict(stage='calibration')

# Never stepped: a runner with a training loop has to have one.
optim_wrapper = dict(_delete_=True, type='OptimWrapper', optimizer=dict(type='SGD', lr=0.0))
param_scheduler = None

train_cfg = dict(_delete_=True, type='CalibrationLoop')
val_cfg = dict(_delete_=True, type='QuantValLoop')
test_cfg = dict(_delete_=True, type='TestLoop')

default_hooks = dict(
    checkpoint=dict(
        _delete_=True,
        type='CheckpointHook',
        interval=1,
        save_optimizer=False,
        save_param_scheduler=False))
log_processor = dict(_delete_=True, type='LogProcessor', window_size=50, by_epoch=True)
