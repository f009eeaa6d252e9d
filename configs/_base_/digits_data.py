"""The embedded digits as data of any detector: loaders and metric, to be taken over key by key.

A config that inherits a detector and this file says ``train_dataloader = {{_base_.digits_train}}``
and so on; ``_delete_`` lets go of what the detector's own data set was given.
"""
digits_scale = (96, 96)  # px; pictures have 160 x 160
digits_metainfo = dict(classes=tuple('0123456789'))

digits_train = dict(
    _delete_=True,
    batch_size=8,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='CocoLMDBDataset',
        lmdb='data/digits/train_lmdb',
        metainfo=digits_metainfo,
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(type='Resize', scale=digits_scale, keep_ratio=False),
            dict(type='PackDetInputs')
        ]))
digits_val = dict(
    _delete_=True,
    batch_size=8,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CocoLMDBDataset',
        lmdb='data/digits/val_lmdb',
        metainfo=digits_metainfo,
        test_mode=True,
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='Resize', scale=digits_scale, keep_ratio=False),
            dict(
                type='PackDetInputs',
                meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))
        ]))
digits_val_metric = dict(
    _delete_=True, type='CocoLMDBMetric', lmdb='data/digits/val_lmdb', metric='bbox')
# Dicts of their own: merging takes ``_delete_`` out.
digits_test = dict(digits_val)
digits_test_metric = dict(digits_val_metric)
