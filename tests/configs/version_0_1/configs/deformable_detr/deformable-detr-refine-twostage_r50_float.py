"""Float training of two-stage Deformable DETR with iterative box refinement."""
_base_ = './deformable-detr-refine_r50_float.py'

model = dict(as_two_stage=True)
