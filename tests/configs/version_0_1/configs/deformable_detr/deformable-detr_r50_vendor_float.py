"""The vendor's own variant of Deformable DETR, whose GOPs and latency are published.

900 queries, and batch norms instead of group norms in the neck. For
``tools/get_flops.py --published Deformable_detr_resnet50``; it trains like any other.
"""
_base_ = '../float.py'

model = dict(num_queries=900, neck=dict(norm_cfg=dict(_delete_=True, type='BN')))
