"""Float training of Deformable DETR with iterative box refinement."""
_base_ = '../float.py'

model = dict(with_box_refine=True)
