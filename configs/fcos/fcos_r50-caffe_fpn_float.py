"""Float training of FCOS, by mmdet's own recipe.

Its backbone comes from Caffe: pictures stay blue first. They are letterboxed to 800 x 1333 px.
"""
_base_ = 'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py'

custom_imports = dict(imports=['mmdet_bpu.registration'], allow_failed_imports=False)
runner_type = 'BPURunner'
bpu = dict(stage='float')
