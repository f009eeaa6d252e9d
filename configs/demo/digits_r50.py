"""Float training of the stock two-stage Deformable DETR with ResNet-50 on the embedded digits, from
scratch.

Depth, widths, levels and queries are the stock ones; only what pretraining asks for is left out: no
frozen stage, batch norms that learn, and a backbone that learns as fast as the rest. It is the large
model of ``benchmarks/accuracy.py``, for a GPU.
"""
_base_ = [
    '../deformable_detr/deformable-detr-refine-twostage_r50_float.py', '../_base_/digits_data.py'
]

model = dict(
    backbone=dict(
        frozen_stages=-1, norm_cfg=dict(requires_grad=True), norm_eval=False, init_cfg=None),
    bbox_head=dict(num_classes=10))

train_dataloader = {{_base_.digits_train}}
val_dataloader = {{_base_.digits_val}}
test_dataloader = {{_base_.digits_test}}
val_evaluator = {{_base_.digits_val_metric}}
test_evaluator = {{_base_.digits_test_metric}}

# 188 steps an epoch.
max_epochs = 12
optim_wrapper = dict(
    optimizer=dict(lr=3e-4),
    paramwise_cfg=dict(
        custom_keys=dict(backbone=dict(lr_mult=1.0), sampling_offsets=dict(lr_mult=1.0))))
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
default_hooks = dict(checkpoint=dict(max_keep_ckpts=1))
randomness = dict(seed=0)
