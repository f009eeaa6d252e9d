"""From an integer program to a ``.hbm``: legality, schedule, memory, estimate, file, report."""
from mmdet_bpu.compiler.compile import CompileResult, compile_program, write_hbm
from mmdet_bpu.compiler.legality import Finding, check_program, refuse_errors
from mmdet_bpu.compiler.march import MARCHES, get_march

__all__ = ['CompileResult', 'Finding', 'MARCHES', 'check_program', 'compile_program', 'get_march',
           'refuse_errors', 'write_hbm']
