"""Float training of RetinaNet, by mmdet's own recipe.

Pictures are letterboxed to 800 x 1333 px, padded with the mean at the right and at the bottom.
"""
_base_ = 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'

custom_imports = dict(imports=['mmdet_bpu.registration'], allow_failed_imports=False)
runner_type = 'BPURunner'
bpu = dict(stage='float')
