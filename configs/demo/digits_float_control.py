"""The control of QAT: the trained float detector, trained on for QAT's steps at QAT's rate.

What QAT gains over calibration counts only against this, because training longer helps a float model
too. Starts from the float checkpoint (``load_from``).
"""
_base_ = './digits_float.py'

# As in QAT.
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
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
