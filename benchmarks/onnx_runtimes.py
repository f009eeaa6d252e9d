"""Runtimes that take a QDQ model, for ``onnx_agreement.py``: opened to agree, or to be quick."""
from importlib.util import find_spec
from typing import Any, Callable, Dict, List

import numpy as np
import onnx
import onnxruntime

from mmdet_bpu.analysis.onnx_nodes import Runtime, Session, onnx_runtime
from mmdet_bpu.graph.opgraph import Op
from mmdet_bpu.lowering.onnx_form.files import KEEP_INT8
from mmdet_bpu.lowering.onnx_form.writer import OnnxWriter


class FloatBiases(OnnxWriter):
    """Leaves biases in float, as QAT has them; the board's, and an export's, are int32."""

    def bias(self, op: Op, as_float: bool = True) -> List[str]:
        """See :meth:`OnnxWriter.bias`."""
        return super().bias(op, as_float=True)


def openvino(model: onnx.ModelProto) -> Session:
    """OpenVINO on the CPU, float32 where it is not integers; its optimizations cannot be turned off.

    Its code generator refuses int16 roundings that are read as integers too (2026.4), so it is.
    """
    return _openvino(model, SNIPPETS_MODE='DISABLE')


def quick_openvino(model: onnx.ModelProto, threads: int) -> Session:
    """OpenVINO on the CPU as a user has it, in float32 where it is not integers."""
    return _openvino(model, INFERENCE_NUM_THREADS=threads)


def _openvino(model: onnx.ModelProto, **settings: Any) -> Session:
    from openvino import Core
    core = Core()
    compiled = core.compile_model(core.read_model(model.SerializeToString()), 'CPU', dict(
        INFERENCE_PRECISION_HINT='f32', PERFORMANCE_HINT='LATENCY', **settings))
    request = compiled.create_infer_request()
    taken = {name for port in compiled.inputs for name in port.names}  # what nothing reads is gone

    def run(feeds: Dict[str, np.ndarray]) -> list:
        found = request.infer({name: array for name, array in feeds.items() if name in taken})
        return [found[output] for output in compiled.outputs]

    return run


def quick_onnx_runtime(model: onnx.ModelProto, threads: int) -> Session:
    """ONNX Runtime on the CPU, its own optimizations on, int8 kept as int8 as stage ``onnx`` does."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry(*KEEP_INT8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options,
                                           ['CPUExecutionProvider'])
    return lambda feeds: session.run(None, feeds)


AGREEING: Dict[str, Runtime] = dict(onnxruntime=onnx_runtime)
"""Installed package -> what opens a model that is compared."""
QUICK: Dict[str, Callable[[onnx.ModelProto, int], Session]] = dict(onnxruntime=quick_onnx_runtime)
"""Installed package -> what opens a model that is timed, with so many threads."""
if find_spec('openvino'):
    AGREEING['openvino'], QUICK['openvino'] = openvino, quick_openvino
