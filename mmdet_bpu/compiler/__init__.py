"""From an integer program to a ``.hbm``: legality, schedule, memory, estimate, file, simulator."""
from mmdet_bpu.compiler.compile import CompileResult, compile_hbm
from mmdet_bpu.compiler.hbm_file import HbmFile, read_hbm, write_hbm
from mmdet_bpu.compiler.legality import Finding, check_program, refuse_errors
from mmdet_bpu.compiler.march import MARCHES, get_march
from mmdet_bpu.compiler.simulator import HbmSimulator

__all__ = ['CompileResult', 'Finding', 'HbmFile', 'HbmSimulator', 'MARCHES', 'check_program',
           'compile_hbm', 'get_march', 'read_hbm', 'refuse_errors', 'write_hbm']
