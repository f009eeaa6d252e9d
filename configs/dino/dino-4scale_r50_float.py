"""Float training of DINO, by mmdet's own recipe.

It would mask the padding of its pictures, and the deployed graph has no mask: they are stretched to
800 x 1333 px.
"""
_base_ = 'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py'

custom_imports = dict(imports=['mmdet_bpu.registration'], allow_failed_imports=False)
runner_type = 'BPURunner'
bpu = dict(stage='float')
