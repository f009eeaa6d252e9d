"""Float training of a small RTMDet on the embedded digits, from scratch.

The detector is the stock RTMDet-tiny at two thirds of its width. It keeps the moving averages, SyncBN
(one process exchanges it for batch norm), and the training that ends without mosaic. MixUp, random
colours and flips are left out: a mirrored digit is another one, and few epochs do not overfit.
"""
_base_ = ['../rtmdet/rtmdet_tiny_float.py', '../_base_/digits_data.py']

model = dict(
    backbone=dict(widen_factor=0.25, init_cfg=None),
    neck=dict(in_channels=[64, 128, 256], out_channels=64),
    bbox_head=dict(num_classes=10, in_channels=64, feat_channels=64))

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='CachedMosaic',
        img_scale={{_base_.digits_scale}},
        pad_val=114.0,
        max_cached_images=20,
        random_pop=False),
    dict(type='RandomResize', scale=(192, 192), ratio_range=(0.8, 1.2), keep_ratio=True),
    dict(type='RandomCrop', crop_size={{_base_.digits_scale}}),
    dict(type='Pad', size={{_base_.digits_scale}}, pad_val=dict(img=(114, 114, 114))),
    dict(type='PackDetInputs')
]
train_pipeline_stage2 = {{_base_.digits_train.dataset.pipeline}}
train_dataloader = dict(
    _delete_=True,
    batch_size=8,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='CocoLMDBDataset',
        lmdb={{_base_.digits_train.dataset.lmdb}},
        metainfo={{_base_.digits_metainfo}},
        pipeline=train_pipeline))
val_dataloader = {{_base_.digits_val}}
test_dataloader = {{_base_.digits_test}}
val_evaluator = {{_base_.digits_val_metric}}
test_evaluator = {{_base_.digits_test_metric}}

# 188 steps an epoch, the last six without mosaic.
max_epochs = 15
optim_wrapper = dict(
    optimizer=dict(lr=2e-3), clip_grad=dict(max_norm=35.0, norm_type=2))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=100),
    dict(
        type='CosineAnnealingLR',
        eta_min_ratio=0.01,
        begin=100,
        end=188 * max_epochs,
        T_max=188 * max_epochs - 100,
        by_epoch=False)
]
train_cfg = dict(_delete_=True, type='EpochBasedTrainLoop', max_epochs=max_epochs,
                 val_interval=max_epochs)
default_hooks = dict(checkpoint=dict(interval=1, max_keep_ckpts=2))
custom_hooks = [
    dict(
        type='EMAHook',
        ema_type='ExpMomentumEMA',
        momentum=0.0002,
        update_buffers=True,
        priority=49),
    dict(
        type='PipelineSwitchHook',
        switch_epoch=max_epochs - 6,
        switch_pipeline=train_pipeline_stage2)
]
randomness = dict(seed=0)
