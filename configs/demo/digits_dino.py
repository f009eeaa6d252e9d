"""Float training of a small DINO on the embedded digits, from scratch.

The detector is the stock one, denoising queries included. The backbone is a ResNet-18 of half the usual
width without its last stage; its last two levels and one more (strides 8, 16, 32) are 189 tokens. One
encoder and two decoder layers, 40 queries. ``embed_dims`` stays 256, which mmdet's encoding of the boxes
is written for.
"""
_base_ = ['../dino/dino-4scale_r50_float.py', '../_base_/digits_data.py']

model = dict(
    num_queries=40,
    num_feature_levels=3,
    backbone=dict(
        depth=18,
        base_channels=32,
        stem_channels=32,
        num_stages=3,
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        out_indices=(1, 2),
        frozen_stages=-1,
        norm_cfg=dict(requires_grad=True),
        norm_eval=False,
        init_cfg=None),
    neck=dict(in_channels=[64, 128], num_outs=3),
    encoder=dict(
        num_layers=1,
        layer_cfg=dict(
            self_attn_cfg=dict(num_levels=3), ffn_cfg=dict(feedforward_channels=512))),
    decoder=dict(
        num_layers=2,
        layer_cfg=dict(
            cross_attn_cfg=dict(num_levels=3), ffn_cfg=dict(feedforward_channels=512))),
    bbox_head=dict(num_classes=10),
    # Groups of a positive and a negative query for each of up to 6 digits of a picture.
    dn_cfg=dict(group_cfg=dict(num_dn_queries=20)),
    test_cfg=dict(max_per_img=40))

train_dataloader = {{_base_.digits_train}}
val_dataloader = {{_base_.digits_val}}
test_dataloader = {{_base_.digits_test}}
val_evaluator = {{_base_.digits_val_metric}}
test_evaluator = {{_base_.digits_test_metric}}

# 188 steps an epoch.
max_epochs = 4
# Nothing is pretrained: the backbone learns faster than the rest, not slower.
optim_wrapper = dict(
    optimizer=dict(lr=5e-4), paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=2.0))))
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
