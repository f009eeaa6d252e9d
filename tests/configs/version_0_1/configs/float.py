"""Float training of the stock Deformable DETR with the recipe that the next stages build on.

This text is also what ``--stage float`` puts over any mmdet config. AdamW 1e-4, backbone 1e-5, no
weight decay on norms, 50 epochs, decay at 40.
"""
_base_ = 'mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py'

custom_imports = dict(imports=['mmdet_bpu.registration'], allow_failed_imports=False)
runner_type = 'BPURunner'
bpu = dict(stage='float')

optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=1e-4),
    clip_grad=dict(max_norm=0.1, norm_type=2),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        custom_keys=dict(
            backbone=dict(lr_mult=0.1),
            sampling_offsets=dict(lr_mult=0.1),
            reference_points=dict(lr_mult=0.1))))
param_scheduler = [
    dict(type='MultiStepLR', begin=0, end=50, by_epoch=True, milestones=[40], gamma=0.1)
]

train_cfg = dict(_delete_=True, type='EpochBasedTrainLoop', max_epochs=50, val_interval=1)
val_cfg = dict(_delete_=True, type='ValLoop')
test_cfg = dict(_delete_=True, type='TestLoop')

default_hooks = dict(
    checkpoint=dict(
        _delete_=True, type='CheckpointHook', interval=1, max_keep_ckpts=3))
log_processor = dict(_delete_=True, type='LogProcessor', window_size=50, by_epoch=True)
