"""Detectors and executables of a config, as the verbs need them."""
import mmdet_bpu.registration  # noqa: F401,I001  (registers our modules)

import copy
from pathlib import Path
from typing import Any, Dict, Union

from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn
from xdsl.dialects.builtin import ModuleOp

from mmdet_bpu.backends.choice import require_vendor
from mmdet_bpu.backends.vendor_module import VendorModule
from mmdet_bpu.choices import KERNELS
from mmdet_bpu.engine.config_errors import refused_config
from mmdet_bpu.engine.prepared import prepare_from
from mmdet_bpu.engine.promised_input import require_promised_input
from mmdet_bpu.engine.stage_names import INT, QUANTIZED_STAGES, VENDOR
from mmdet_bpu.engine.stages import complete_config
from mmdet_bpu.engine.weights import check_stage, read_checkpoint
from mmdet_bpu.errors import BpuError
from mmdet_bpu.executors.interpreter import Interpreter
from mmdet_bpu.executors.protocol import Executable
from mmdet_bpu.families.class_names import class_names
from mmdet_bpu.families.contract import check_decoding, converted_by_host, deploy_metadata
from mmdet_bpu.families.fitting_shape import require_fitting_shape
from mmdet_bpu.families.refusals import refuse_config, refuse_model
from mmdet_bpu.hbir.integer_program import program_from_module
from mmdet_bpu.hbir.text import print_text
from mmdet_bpu.lowering.artifact_formats import FORMATS, load_artifact
from mmdet_bpu.lowering.artifacts import IntegerModel, to_integers
from mmdet_bpu.models.plain_norms import SYNCHRONIZED, open_norms
from mmdet_bpu.program.program import Program
from mmdet_bpu.quantization import quantization_of, quantized_graphs, set_quant_state

CHECKPOINT_SUFFIXES = ('.pth', '.pt')


def build_detector(cfg: Config) -> nn.Module:
    """The stock detector of a config, on CPU, without initialising its weights.

    Raises:
        BpuError: It is of a kind that cannot be deployed.
    """
    init_default_scope(cfg.get('default_scope') or 'mmdet')
    refuse_config(cfg)
    # mmdet's detectors write into the config that they are built from.
    with refused_config(cfg):
        model = MODELS.build(copy.deepcopy(cfg.model)).eval()
    open_norms(model, SYNCHRONIZED)
    refuse_model(model, cfg)
    return model


def deployable_detector(cfg: Config, settings: Dict[str, Any]) -> nn.Module:
    """The stock detector of a completed config, if it can take the deployed input.

    Raises:
        BpuError: Backbone and neck cannot take ``bpu.input_shape``; the message names shapes that
            fit.
    """
    model = build_detector(cfg)
    require_fitting_shape(model, settings['input_shape'])
    return model


def settings_of(cfg: Config) -> Dict[str, Any]:
    """Complete a config in place and return its validated ``bpu`` settings.

    Raises:
        BpuError: A setting is wrong, or the config's detector cannot be deployed.
    """
    refuse_config(cfg)
    if cfg.get('bpu') is None:
        raise BpuError('the config has no key bpu; pass a stage, or inherit from configs/qat.py')
    return complete_config(cfg).as_dict()


def load_quantized(cfg: Config, checkpoint: str) -> nn.Module:
    """A prepared detector with the weights and scales of a calibration or QAT checkpoint.

    Raises:
        BpuError: The checkpoint is of another stage, or its keys do not fit the config.
    """
    settings = settings_of(cfg)
    loaded = read_checkpoint(checkpoint)
    check_stage(loaded, QUANTIZED_STAGES, checkpoint, 'make an integer model')
    model = prepare_from(deployable_detector(cfg, settings), settings, loaded, checkpoint)
    set_quant_state(model, 'quantize')
    return model


def metadata_of(cfg: Config, model: nn.Module) -> Dict[str, Any]:
    """Metadata of a prepared detector's artefacts: its deploy contract.

    Raises:
        BpuError: A setting has no place in a contract, or the config's test pipeline does to
            pictures what the contract does not say.
    """
    network, = quantization_of(model).networks
    metadata = deploy_metadata(cfg, model, network.graph.output_tree, class_names(cfg))
    check_decoding(metadata)
    init_default_scope(cfg.get('default_scope') or 'mmdet')
    require_promised_input(cfg, metadata['preprocessing'])
    return metadata


def export_hbir(cfg: Config, checkpoint: str) -> IntegerModel:
    """Fixed-point model of a calibration or QAT checkpoint."""
    model = load_quantized(cfg, checkpoint)
    return to_integers(quantized_graphs(model), metadata_of(cfg, model))


def load_executable(cfg: Config, path: Union[str, Path], stage: str,
                    kernels: str = KERNELS[0]) -> Executable:
    """What stage ``int``, ``hbm`` or ``hbdk4`` evaluates.

    Stage ``int`` takes a calibration or QAT checkpoint, converted on the fly, or a ``.int.mlir``;
    stage ``hbm`` takes a ``.hbm``. A kernel set computes it, by default the fast one. Stage
    ``hbdk4`` takes a checkpoint, which the vendor's package converts and computes.

    Raises:
        BpuError: The file is of another kind than the stage takes, or the vendor's package is
            absent.
    """
    if stage == VENDOR:
        require_vendor(f'parameter stage={VENDOR!r}')
    checkpoints = CHECKPOINT_SUFFIXES if stage in (INT, VENDOR) else ()
    suffixes = (FORMATS[stage].suffix, ) if stage in FORMATS else ()
    expected = (*suffixes, *checkpoints)
    if not Path(path).name.endswith(expected):
        raise BpuError(f'stage {stage!r} takes a {" or ".join(expected)} file, found {path}')
    if stage == VENDOR:
        model = load_quantized(cfg, str(path))
        exported = to_integers(quantized_graphs(model),
                               converted_by_host(metadata_of(cfg, model)))
        return vendor_module(exported.hbir, program_from_module(exported.integer), cfg.bpu.march)
    if Path(path).suffix in checkpoints:
        return Interpreter(program_from_module(export_hbir(cfg, str(path)).integer),
                           kernels=kernels)
    return load_artifact(path, kernels)


def vendor_module(hbir: ModuleOp, program: Program, march: str) -> Executable:
    """What the vendor's package makes of a network, on the inputs and outputs of our integers.

    Args:
        hbir (ModuleOp): The network, fake-quantized.
        program (Program): Our integers of it.
        march (str): March name.

    Raises:
        BpuError: The package is absent, or refuses the network.
    """
    inputs, outputs = ([program.spec(name) for name in names]
                       for names in (program.inputs, program.outputs))
    return VendorModule(print_text(hbir), march, inputs, outputs, program.metadata)
