"""What runs an integer program: the interpreter, and the simulator of a ``.hbm``.

Neither needs OpenMMLab or xDSL, nor has importing them an effect on the process.
"""
from mmdet_bpu.executors.interpreter import Interpreter
from mmdet_bpu.executors.protocol import Executable, Network
from mmdet_bpu.executors.simulator import HbmSimulator

__all__ = ['Executable', 'HbmSimulator', 'Interpreter', 'Network']
