"""EfficientNet-B3 as a backbone: strides 8, 16, 32 of mmdet's layers, and their channels."""
efficientnet_b3 = dict(
    _delete_=True,
    type='EfficientNet',
    arch='b3',
    drop_path_rate=0.2,
    out_indices=(3, 4, 5),
    frozen_stages=0,
    norm_cfg=dict(type='BN', eps=1e-3, momentum=0.01, requires_grad=True),
    norm_eval=True,
    init_cfg=dict(
        type='Pretrained',
        prefix='backbone',
        checkpoint='https://download.openmmlab.com/mmclassification/v0/efficientnet/'
        'efficientnet-b3_3rdparty_8xb32-aa_in1k_20220119-5b4887a0.pth'))
efficientnet_b3_channels = [48, 136, 384]
