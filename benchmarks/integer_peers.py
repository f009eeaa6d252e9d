"""Integers of a ResNet-50 trunk by our kernels, ONNX Runtime and OpenVINO, where they are installed.

All are timed in turn beside torch's float trunk, with the same threads. ONNX Runtime quantizes the
trunk per channel to QDQ form, int8 weights and activations, on one image of noise; OpenVINO runs the
same file. Neither says that its integers are exact; ``largest_difference`` is that of the output to
the float trunk's, of its largest magnitude.
"""
import statistics
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Callable, Dict, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from training_steps import ratio, timed
from trunk import resnet50

from mmdet_bpu.analysis.model_check import observe_random_image, set_random_weights
from mmdet_bpu.engine.artifact_detector import quantize_image
from mmdet_bpu.executors import Interpreter
from mmdet_bpu.hbir.integer_program import program_from_module
from mmdet_bpu.lowering.artifacts import to_integers
from mmdet_bpu.quantization import prepare, quantized_graphs

Run = Callable[[], Tensor]


class TrunkDetector(nn.Module):
    """A detector that is a trunk alone."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = resnet50()
        self.bbox_head = nn.Identity()

    def extract_feat(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) to the last stage."""
        return self.trunk(images)

    def forward(self, images: Tensor, *samples: object, mode: str = 'tensor') -> Tensor:
        """The same, as mmdet calls it."""
        return self.bbox_head.forward(self.extract_feat(images))


def ours(trunk: nn.Module, image: Tensor, folder: Path, threads: int) -> Run:
    """Our integers, by the fast kernels."""
    detector = TrunkDetector()
    detector.trunk.load_state_dict(trunk.state_dict())
    prepare(detector.eval(), dict(input_shape=tuple(image.shape[2:]),
                                  calibration=dict(observer='minmax')))
    observe_random_image(detector)
    program = program_from_module(to_integers(quantized_graphs(detector)).integer)
    network, spec = Interpreter(program, kernels='fast'), program.spec(program.inputs[0])
    output = program.spec(program.outputs[0])
    inputs = {spec.name: quantize_image(image[0], spec.scale)}
    return lambda: network.run(inputs)[output.name] * output.scale


def quantized_onnx(trunk: nn.Module, image: Tensor, folder: Path) -> Path:
    """The trunk in QDQ form."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Noise(CalibrationDataReader):
        """The one image."""
        images = iter([dict(image=image.numpy())])

        def get_next(self) -> Dict[str, np.ndarray]:
            return next(self.images, None)

    files = [folder / f'{name}.onnx' for name in ('float', 'simplified', 'qdq')]
    if not files[-1].is_file():
        torch.onnx.export(trunk, (image, ), files[0], input_names=['image'], dynamo=True,
                          external_data=False, verbose=False)
        quant_pre_process(files[0], files[1])
        quantize_static(files[1], files[2], Noise(), quant_format=QuantFormat.QDQ, per_channel=True)
    return files[-1]


def onnx_runtime(trunk: nn.Module, image: Tensor, folder: Path, threads: int) -> Run:
    """ONNX Runtime on the CPU."""
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(quantized_onnx(trunk, image, folder), options,
                                           ['CPUExecutionProvider'])
    inputs = dict(image=image.numpy())
    return lambda: torch.from_numpy(session.run(None, inputs)[0])


def openvino(trunk: nn.Module, image: Tensor, folder: Path, threads: int) -> Run:
    """OpenVINO on the CPU."""
    import openvino
    model = openvino.compile_model(quantized_onnx(trunk, image, folder), 'CPU', dict(
        INFERENCE_NUM_THREADS=threads, PERFORMANCE_HINT='LATENCY'))
    request = model.create_infer_request()
    return lambda: torch.from_numpy(request.infer([image.numpy()])[0])


PEERS: Dict[str, Callable[[nn.Module, Tensor, Path, int], Run]] = {
    'mmdet_bpu': ours, 'onnxruntime': onnx_runtime, 'openvino': openvino}
"""Package -> what prepares its trunk."""
NEEDS = dict(openvino=('openvino', 'onnxruntime', 'onnxscript'),
             onnxruntime=('onnxruntime', 'onnxscript'))


def trunk_speeds(shape: Sequence[int], threads: int, repeats: int) -> dict:
    """Per package that is installed, seconds and how many times as fast as float it is."""
    torch.manual_seed(0)
    trunk = resnet50().eval()
    set_random_weights(trunk)
    image = torch.randn(1, 3, *shape)
    found: Dict[str, dict] = {}
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        runs: Dict[str, Run] = {'float': lambda: trunk(image)}
        for name, make in PEERS.items():
            if all(map(find_spec, NEEDS.get(name, ()))):
                try:
                    runs[name] = make(trunk, image, Path(folder), threads)
                    runs[name]()
                except Exception as error:  # versions of packages that we do not choose
                    runs.pop(name, None)
                    found[name] = dict(failed=f'{type(error).__name__}: {str(error)[:200]}')
        expected = runs['float']()
        seconds = timed(runs, repeats)
        for name, each in seconds.items():
            difference = (runs[name]() - expected).abs().max() / expected.abs().max()
            found[name] = dict(seconds=round(statistics.median(each), 4),
                               float_over_it=ratio(seconds['float'], each),
                               largest_difference=round(difference.item(), 4))
    return found
