"""Calibration of Deformable DETR with iterative box refinement."""
_base_ = '../calibration.py'

model = dict(with_box_refine=True)
