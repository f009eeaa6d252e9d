"""QAT of the digits detector: ``--stage qat`` over the float config, with a schedule for the demo.

Starts from the calibration checkpoint, or from the float one and calibrates first (``load_from``).
"""
_base_ = './digits_float.py'

bpu = dict(stage='qat', calibration=dict(num_batches=25))  # 200 images

# Half as many steps an epoch as float training takes: they cost more and change less.
train_dataloader = dict(batch_size=8)

max_epochs = 1
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=5e-5, weight_decay=0.0, fused=True),
    clip_grad=dict(max_norm=0.1, norm_type=2))
param_scheduler = [
    dict(
        type='CosineAnnealingLR',
        eta_min_ratio=0.01,
        begin=0,
        end=188 * max_epochs,
        T_max=188 * max_epochs,
        by_epoch=False)
]
train_cfg = dict(_delete_=True, type='QATLoop', max_epochs=max_epochs, val_interval=max_epochs)
val_cfg = dict(_delete_=True, type='QuantValLoop')
