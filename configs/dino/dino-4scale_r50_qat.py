"""QAT of DINO: AdamW 1e-5, a tenth of the float rate, 6 epochs, decay at 5."""
_base_ = './dino-4scale_r50_float.py'

bpu = dict(stage='qat')

optim_wrapper = dict(optimizer=dict(lr=1e-05, weight_decay=0.0))
param_scheduler = [
    dict(type='MultiStepLR', begin=0, end=6, by_epoch=True, milestones=[5], gamma=0.1)
]

train_cfg = dict(_delete_=True, type='QATLoop', max_epochs=6, val_interval=1)
val_cfg = dict(type='QuantValLoop')

default_hooks = dict(checkpoint=dict(interval=1, by_epoch=True))
