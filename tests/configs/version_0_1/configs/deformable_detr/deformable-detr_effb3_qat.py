"""QAT of Deformable DETR on an EfficientNet-B3."""
_base_ = ['../qat.py', '../_base_/efficientnet_b3.py']

model = dict(
    backbone={{_base_.efficientnet_b3}},
    neck=dict(in_channels={{_base_.efficientnet_b3_channels}}))
