"""QAT of RTMDet-tiny: AdamW 4e-4, a tenth of the float rate, 6 epochs, decay at 5."""
_base_ = './rtmdet_tiny_float.py'

bpu = dict(stage='qat')

optim_wrapper = dict(optimizer=dict(lr=0.0004, weight_decay=0.0))
param_scheduler = [
    dict(type='MultiStepLR', begin=0, end=6, by_epoch=True, milestones=[5], gamma=0.1)
]

train_cfg = dict(_delete_=True, type='QATLoop', max_epochs=6, val_interval=1)
val_cfg = dict(type='QuantValLoop')

default_hooks = dict(checkpoint=dict(interval=1, by_epoch=True))

# The float run ends with this pipeline, without mosaic; the averages of its EMAHook go on.
train_dataloader = dict(dataset=dict(pipeline={{_base_.train_pipeline_stage2}}))
custom_hooks = [
    dict(
        type='EMAHook',
        ema_type='ExpMomentumEMA',
        momentum=0.0002,
        update_buffers=True,
        priority=49)
]
