"""Images and annotations into a database."""
from mmdet_bpu.datasets.digits import make_digits
from mmdet_bpu.datasets.lmdb_packer import pack_coco as pack
from mmdet_bpu.datasets.lmdb_verify import verify_database as verify
from mmdet_bpu.datasets.packing_report import report_lines

__all__ = ['make_digits', 'pack', 'report_lines', 'verify']
