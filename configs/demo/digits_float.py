"""Float training of a small two-stage Deformable DETR on the embedded digits, from scratch.

The detector is the stock one. Sizes are chosen for two CPU cores, where many small steps teach more a
second than few large ones: pictures of 128 x 128 px, four a step; a ResNet-18 of half the usual
width, whose last two levels and one more (strides 16, 32, 64) are only 84 tokens; one encoder and
two decoder layers of two points. ``embed_dims`` stays 256, which mmdet's two-stage proposals are
written for.
"""
_base_ = '../deformable_detr/deformable-detr-refine-twostage_r50_float.py'

bpu = dict(input_shape=(128, 128))

model = dict(
    num_queries=40,
    num_feature_levels=3,
    backbone=dict(
        _delete_=True,
        type='ResNet',
        depth=18,
        base_channels=32,
        stem_channels=32,
        out_indices=(2, 3),
        norm_cfg=dict(type='BN', requires_grad=True),
        norm_eval=False,
        style='pytorch'),
    neck=dict(in_channels=[128, 256], num_outs=3),
    encoder=dict(
        num_layers=1,
        layer_cfg=dict(
            self_attn_cfg=dict(num_levels=3, num_points=2, dropout=0.0),
            ffn_cfg=dict(feedforward_channels=512, ffn_drop=0.0))),
    decoder=dict(
        num_layers=2,
        layer_cfg=dict(
            self_attn_cfg=dict(dropout=0.0),
            cross_attn_cfg=dict(num_levels=3, num_points=2, dropout=0.0),
            ffn_cfg=dict(feedforward_channels=512, ffn_drop=0.0))),
    bbox_head=dict(num_classes=10),
    test_cfg=dict(max_per_img=40))

metainfo = dict(classes=tuple('0123456789'))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(128, 128), keep_ratio=False),
    dict(type='PackDetInputs')
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(128, 128), keep_ratio=False),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))
]
train_dataloader = dict(
    _delete_=True,
    batch_size=4,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='CocoLMDBDataset',
        lmdb='data/digits/train_lmdb',
        metainfo=metainfo,
        pipeline=train_pipeline))
val_dataloader = dict(
    _delete_=True,
    batch_size=8,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CocoLMDBDataset',
        lmdb='data/digits/val_lmdb',
        metainfo=metainfo,
        pipeline=test_pipeline,
        test_mode=True))
test_dataloader = val_dataloader
val_evaluator = dict(
    _delete_=True, type='CocoLMDBMetric', lmdb='data/digits/val_lmdb', metric='bbox')
test_evaluator = val_evaluator

# 4 epochs of 375 steps.
max_epochs = 4
# Nothing is pretrained: the backbone learns faster than the rest, not slower.
optim_wrapper = dict(
    optimizer=dict(lr=5e-4, fused=True),
    paramwise_cfg=dict(
        custom_keys=dict(backbone=dict(lr_mult=2.0), sampling_offsets=dict(lr_mult=1.0))))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=100),
    dict(
        type='CosineAnnealingLR',
        eta_min_ratio=0.01,
        begin=100,
        end=375 * max_epochs,
        T_max=375 * max_epochs - 100,
        by_epoch=False)
]
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=1))
randomness = dict(seed=0)
