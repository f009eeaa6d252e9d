"""The integer module ``model.int.mlir``: written, and as an executable."""
from pathlib import Path

from mmdet_bpu.executors.interpreter import Interpreter
from mmdet_bpu.hbir.integer_program import program_from_module
from mmdet_bpu.hbir.text import read_text, write_text
from mmdet_bpu.lowering.artifacts import IntegerModel


def write(exported: IntegerModel, path: Path) -> None:
    """Write the module of the ``bpu`` dialect."""
    write_text(exported.integer, path)


def load(path: Path, kernels: str) -> Interpreter:
    """Read a module of the ``bpu`` dialect and make it ready to run by a kernel set.

    Raises:
        BpuError: Not such a module, or an instruction that the numeric contract excludes.
    """
    return Interpreter(program_from_module(read_text(path)), kernels=kernels)
