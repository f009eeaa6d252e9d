"""Float training of a small RetinaNet on the embedded digits, from scratch.

The detector is the stock one with a ResNet-18 of half the usual width, three levels of 64 channels
and two convolutions before each output. Anchors begin at 16 px instead of 32: digits have 12 to 38 px
in pictures of 96 x 96.
"""
_base_ = ['../retinanet/retinanet_r50_fpn_float.py', '../_base_/digits_data.py']

model = dict(
    backbone=dict(
        depth=18,
        base_channels=32,
        stem_channels=32,
        frozen_stages=-1,
        norm_eval=False,
        init_cfg=None),
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=64, num_outs=3),
    bbox_head=dict(
        num_classes=10,
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        anchor_generator=dict(octave_base_scale=2, strides=[8, 16, 32])))

train_dataloader = {{_base_.digits_train}}
val_dataloader = {{_base_.digits_val}}
test_dataloader = {{_base_.digits_test}}
val_evaluator = {{_base_.digits_val_metric}}
test_evaluator = {{_base_.digits_test_metric}}

# 188 steps an epoch.
max_epochs = 6
# The head has no norms and begins near 0: a rate per weight, where stock RetinaNet has SGD.
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=1e-4),
    clip_grad=dict(max_norm=10.0, norm_type=2))
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
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
randomness = dict(seed=0)
