"""Float training of YOLOX-s, by mmdet's own recipe.

Pictures, blue first and not normalised, are letterboxed to 640 x 640 px, padded with 114. Side lengths
have to be multiples of 32.
"""
_base_ = 'mmdet::yolox/yolox_s_8xb8-300e_coco.py'

custom_imports = dict(imports=['mmdet_bpu.registration'], allow_failed_imports=False)
runner_type = 'BPURunner'
bpu = dict(stage='float')
