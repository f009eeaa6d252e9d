"""ONNX files: written, checked, and run by ONNX Runtime as an executable."""
import json
import os
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

import numpy as np
import torch

from mmdet_bpu.errors import BpuError
from mmdet_bpu.executors.input_check import check_inputs
from mmdet_bpu.executors.protocol import KernelCounts, Network, Tensors
from mmdet_bpu.families.contract import converted_by_host
from mmdet_bpu.graph.quantized_graph import QuantizedGraph
from mmdet_bpu.hbir.builder import metadata_of
from mmdet_bpu.lowering.artifact_formats import FORMATS
from mmdet_bpu.lowering.artifacts import IntegerModel
from mmdet_bpu.program.program import TensorSpec

MISSING = ('{} is not installed, which the ONNX format needs: pip install "mmdet_bpu[onnx]"')
LARGEST_MESSAGE = 2**31 - 1 - 2**20  # bytes of one protobuf message; tensors beyond lie beside it
EXTERNAL = 1024  # bytes from which on a tensor lies beside the model
NETWORK = 'detector'
KEEP_INT8 = 'session.qdqisint8allowed', '1'
"""On x86 ONNX Runtime else exchanges int8 for uint8, whose products saturate without VNNI, and stumbles
over transposed integers (1.32)."""


def write(exported: IntegerModel, path: Path) -> None:
    """Write the QDQ model of what was exported, with its deployment contract.

    Raises:
        BpuError: ``onnx`` is not installed, an op has no ONNX form, or there are several networks.
    """
    write_model(only_network(exported.networks), path,
                converted_by_host(metadata_of(exported.integer)),
                data_name=f'{FORMATS["onnx"].file}.data')


def only_network(networks: Sequence[QuantizedGraph]) -> QuantizedGraph:
    """The network of a detector that has one.

    Raises:
        BpuError: It has several.
    """
    if len(networks) != 1:
        raise BpuError(f'expected a detector of one network, found {len(networks)}')
    return networks[0]


def write_model(network: QuantizedGraph, path: Path, metadata: dict, as_float: bool = False,
                data_name: Optional[str] = None) -> None:
    """Write a network; tensors lie in a second file beside it if one message cannot hold them all.

    Args:
        network (QuantizedGraph): With scales.
        path (Path): File to write.
        metadata (dict): The deployment contract.
        as_float (bool): Leave quantizers out. Defaults to False.
        data_name (str, optional): Name of the second file. Defaults to that of ``path`` and ``.data``.

    Raises:
        BpuError: ``onnx`` is not installed, or an op has no ONNX form.
    """
    try:
        import onnx
    except ImportError:
        raise BpuError(MISSING.format('onnx')) from None
    from mmdet_bpu.lowering.onnx_form.model import model_of
    model = model_of(network, metadata, as_float)
    if model.ByteSize() <= LARGEST_MESSAGE:
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, str(path))
        return
    data_name = data_name or f'{path.name}.data'
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        whole, data = Path(folder, path.name), Path(folder, data_name)
        onnx.save(model, str(whole), save_as_external_data=True, location=data_name,
                  size_threshold=EXTERNAL)
        onnx.checker.check_model(str(whole))
        os.replace(data, path.with_name(data_name))
        os.replace(whole, path)


class OnnxNetwork:
    """A QDQ model in ONNX Runtime, fed with the image's integers.

    Its outputs are real numbers, of scale 1.

    Args:
        path (Path): An ``.onnx`` file that :func:`write` has written.

    Raises:
        BpuError: ONNX Runtime is not installed, or it is no such file.
    """
    name = NETWORK

    def __init__(self, path: Path) -> None:
        try:
            import onnx
            import onnxruntime
        except ImportError as error:
            raise BpuError(MISSING.format(error.name)) from None
        from mmdet_bpu.lowering.onnx_form.model import CONTRACT
        try:
            model = onnx.load(str(path), load_external_data=False)
            properties = {entry.key: entry.value for entry in model.metadata_props}
            self.metadata: Dict[str, Any] = json.loads(properties[CONTRACT])
            options = onnxruntime.SessionOptions()
            options.add_session_config_entry(*KEEP_INT8)
            self._session = onnxruntime.InferenceSession(str(path), options,
                                                         providers=['CPUExecutionProvider'])
        except KeyError:
            raise BpuError(f'{path}: expected an ONNX model with a deployment contract, as '
                           'tools/export_onnx.py writes it, found none in its metadata') from None
        except Exception as error:  # protobuf and ONNX Runtime have many of their own
            raise BpuError(f'{path}: ONNX Runtime cannot open it: {error}') from error
        self.inputs: List[TensorSpec] = [_input_spec(model, path)]
        self.outputs = [TensorSpec(output.name, tuple(output.shape), 'f32', 1.0)
                        for output in self._session.get_outputs()]
        self.kernel_counts: KernelCounts = {
            'onnxruntime': Counter(node.op_type for node in model.graph.node)}

    @property
    def networks(self) -> List[Network]:
        return [self]

    def run(self, inputs: Tensors) -> Tensors:
        """Run one inference; see :class:`mmdet_bpu.executors.protocol.Network`."""
        check_inputs(self.inputs, inputs)
        spec = self.inputs[0]
        image = inputs[spec.name].permute(0, 3, 1, 2).numpy().astype(np.float32)
        results = self._session.run(None, {spec.name: image * np.float32(spec.scale)})
        return {output.name: torch.from_numpy(result)
                for output, result in zip(self.outputs, results)}


def _input_spec(model: Any, path: Path) -> TensorSpec:
    """The image as integers, by the quantizer that reads it."""
    from onnx import numpy_helper
    graph = model.graph
    image = graph.input[0]
    quantizer = next((node for node in graph.node if node.op_type == 'QuantizeLinear'
                      and node.input[0] == image.name), None)
    if quantizer is None:
        raise BpuError(f'{path}: expected a model whose image is quantized, found a float one; it '
                       'is for other tools, and is not evaluated here')
    scale = next(each for each in graph.initializer if each.name == quantizer.input[1])
    batch, channels, height, width = (size.dim_value for size in image.type.tensor_type.shape.dim)
    return TensorSpec(image.name, (batch, height, width, channels), 'si8',
                      float(numpy_helper.to_array(scale)))
