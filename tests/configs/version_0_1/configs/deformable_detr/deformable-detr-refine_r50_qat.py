"""QAT of Deformable DETR with iterative box refinement."""
_base_ = '../qat.py'

model = dict(with_box_refine=True)
