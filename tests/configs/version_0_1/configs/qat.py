"""Quantization-aware training of the stock Deformable DETR: AdamW 1e-5, 6 epochs, decay at 5.

This text is also what ``--stage qat`` puts over any mmdet config. Activation scales stay as
calibrated, weight scales follow the weights. Starts from a calibration checkpoint; given a float
one, it calibrates first. Data goes through the deploy preprocessing at ``bpu.input_shape``.
"""
_base_ = 'mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py'

custom_imports = dict(imports=['mmdet_bpu.registration'], allow_failed_imports=False)
runner_type = 'BPURunner'
bpu = dict(stage='qat')

optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-5, weight_decay=0.0),
    clip_grad=dict(max_norm=0.1, norm_type=2))
param_scheduler = [
    dict(type='MultiStepLR', begin=0, end=6, by_epoch=True, milestones=[5], gamma=0.1)
]

train_cfg = dict(_delete_=True, type='QATLoop', max_epochs=6, val_interval=1)
val_cfg = dict(_delete_=True, type='QuantValLoop')
test_cfg = dict(_delete_=True, type='TestLoop')

default_hooks = dict(
    checkpoint=dict(
        _delete_=True, type='CheckpointHook', interval=1, max_keep_ckpts=3))
log_processor = dict(_delete_=True, type='LogProcessor', window_size=50, by_epoch=True)
