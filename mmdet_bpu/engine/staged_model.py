"""The part of the runner that builds the model at its stage, and reads what it goes on from."""
from types import MappingProxyType
from typing import Any, Callable, Dict, Mapping, Optional, Union

import torch
from mmengine.model import is_model_wrapper
from torch import nn

from mmdet_bpu.compat import has_compiled_ext
from mmdet_bpu.engine.artifact_detector import ArtifactDetector
from mmdet_bpu.engine.camera_input import byte_camera
from mmdet_bpu.engine.distillation import train_reached_alone
from mmdet_bpu.engine.download import connected, fetch_pretrained
from mmdet_bpu.engine.loading import check_averages, load_strictly
from mmdet_bpu.engine.prepared import calibrate_again, prepare_again, prepare_from
from mmdet_bpu.engine.process_runner import ProcessRunner
from mmdet_bpu.engine.scale_group import refuse_other_scales
from mmdet_bpu.engine.settings import BpuSettings
from mmdet_bpu.engine.sources import find_source
from mmdet_bpu.engine.stage_names import CALIBRATION, FLOAT, QAT, SOURCE_STAGES
from mmdet_bpu.engine.trained_colors import warn_of_other_colors
from mmdet_bpu.engine.weights import check_stage, read_checkpoint, stage_of
from mmdet_bpu.errors import BpuError
from mmdet_bpu.families.fitting_shape import require_fitting_shape
from mmdet_bpu.families.refusals import refuse_model
from mmdet_bpu.models.deformable_attention import open_deformable_attention
from mmdet_bpu.models.deformable_convolution import open_deformable_convolution
from mmdet_bpu.quantization import prepare, set_quant_state
from mmdet_bpu.quantization.saved_norms import refuse_other_norms


class StagedModelRunner(ProcessRunner):
    """A runner whose model is at the stage of the run when the rest is built.

    Building the model is: build the stock detector, load float weights, prepare it, load quantized
    weights. So device transfer, DDP, optimizer, EMA and resuming all see the final model. Weights
    come from ``load_from``, else from the newest checkpoint of the stage before; a resumed run
    needs neither.

    Attributes:
        settings (BpuSettings): The validated ``bpu`` key.
        source (str | None): Checkpoint that the model was built with.
        weights_stage (str | None): Stage that the model's weights have reached; None for a float
            model that was not loaded.
        calibrated_on (dict): Meta data of the images whose statistics give the scales.
    """

    settings: BpuSettings
    source: Optional[str] = None
    weights_stage: Optional[str] = None
    calibrated_on: Mapping[str, Any] = MappingProxyType({})

    def build_model(self, model: Union[nn.Module, Dict]) -> nn.Module:
        """Build the detector and bring it to the stage of this run.

        Raises:
            BpuError: The detector cannot be deployed, there are no weights to start from, or they
                do not fit.
        """
        model = self._stock(model)
        refuse_model(model, self.cfg)
        stage = self.settings.stage
        if self.settings.is_executable:
            self._load_from = None
            return ArtifactDetector(model, camera=byte_camera(self.settings))
        self.open_synchronized_norms(model)
        if self.settings.deploy_preprocessing:
            require_fitting_shape(model, self.settings.input_shape)
        checkpoint = None
        if self._resume and stage != FLOAT:
            return self._resumed(model)
        if not self._resume:
            self.source = find_source(stage, self.work_dir, self._load_from)
            self._load_from = None  # consumed here
        if self.source is not None:
            checkpoint = read_checkpoint(self.source)
            check_stage(checkpoint, SOURCE_STAGES[stage] + (stage, ), self.source,
                        f'run stage {stage!r}')
            self.weights_stage = stage_of(checkpoint)
            self.logger.info(f'weights of stage {self.weights_stage!r} from {self.source}')
            if self.weights_stage == FLOAT and (
                    self.settings.is_quantized or self.settings.deploy_preprocessing):
                warn_of_other_colors(checkpoint['meta'], self.settings.input_format, self.source)
        if stage == FLOAT:
            if checkpoint is not None:
                load_strictly(model, checkpoint['state_dict'], self.source)
            return model
        return self._ready(self._quantized(model, checkpoint))

    def _stock(self, model: Union[nn.Module, Dict]) -> nn.Module:
        """The detector of a config, with what this machine needs in order to run it."""
        model = super().build_model(model)
        if not has_compiled_ext():
            open_deformable_convolution(model)
            if torch.cuda.is_available():
                # Stock deformable attention calls mmcv's op there; on CPU it is plain torch.
                open_deformable_attention(model)
        return model

    def _resumed(self, model: nn.Module) -> nn.Module:
        """As the run that goes on had prepared it; mmengine loads its weights later."""
        checkpoint = self._read_own(self._load_from)
        model = prepare_again(model, self.settings.as_dict(), checkpoint, self._load_from)
        set_quant_state(model, 'quantize')
        return self._ready(model)

    def _ready(self, model: nn.Module) -> nn.Module:
        """A prepared detector with what is not trained left out."""
        if self.settings.stage == QAT:
            train_reached_alone(model, self.settings.qat)
        return model

    def _read_own(self, filename: str, map_location: Union[str, Callable] = 'cpu') -> dict:
        """A checkpoint of this stage.

        Raises:
            BpuError: It is of another one.
        """
        checkpoint, stage = read_checkpoint(filename, map_location), self.settings.stage
        check_stage(checkpoint, (stage, ), filename, f'go on with stage {stage!r}')
        return checkpoint

    def _quantized(self, model: nn.Module, checkpoint: Optional[dict]) -> nn.Module:
        """Load float weights, prepare, load quantized weights: one of the two loads, or none."""
        if self.calibrates_again and checkpoint is not None:
            statistics = self.cfg.train_cfg.from_statistics
            calibration = read_checkpoint(statistics)
            model = calibrate_again(model, self.settings.as_dict(), checkpoint, self.source,
                                    calibration, statistics)
            self.calibrated_on = calibration['meta'].get('dataset_meta') or {}
            self.weights_stage = CALIBRATION
            set_quant_state(model, 'quantize')
            return model
        if self.needs_calibration:
            load_strictly(model, checkpoint['state_dict'], self.source)
        if checkpoint is not None and not self.needs_calibration:
            model = prepare_from(model, self.settings.as_dict(), checkpoint, self.source)
        else:
            model = prepare(model, self.settings.as_dict())
        set_quant_state(model, 'off' if self.needs_calibration else 'quantize')
        return model

    @property
    def folds_norms(self) -> bool:
        """bool: Calibration and QAT fold batch norms, and freeze those that stand alone."""
        return self.settings.is_quantized

    @property
    def needs_calibration(self) -> bool:
        """bool: Whether the model is to be quantized but its weights are float ones."""
        return self.settings.is_quantized and self.weights_stage == FLOAT

    @property
    def calibrates_again(self) -> bool:
        """bool: Whether scales come from what an earlier calibration saw."""
        return self.settings.stage == CALIBRATION and bool(
            (self.cfg.get('train_cfg') or {}).get('from_statistics'))

    @property
    def is_resumed(self) -> bool:
        """bool: Whether the run goes on from a checkpoint of its own."""
        return bool(self._resume)

    def _init_model_weights(self) -> None:
        """Initialise only a float model that no checkpoint is loaded into."""
        if self.settings.stage == FLOAT and self.source is None and not self._resume:
            model = self.model.module if is_model_wrapper(self.model) else self.model
            fetch_pretrained(model)
            with connected('what model.init_cfg begins with'):
                super()._init_model_weights()

    def load_checkpoint(self,
                        filename: str,
                        map_location: Union[str, Callable] = 'cpu',
                        strict: bool = True,
                        revise_keys: Optional[list] = None) -> dict:
        """Read a checkpoint of this stage safely and load it strictly.

        Args:
            filename (str): A local file or an http(s) address.
            map_location (str | Callable): As for ``torch.load``. Defaults to ``'cpu'``.
            strict (bool): Kept for mmengine's signature; loading is always strict.
            revise_keys (list, optional): Kept for mmengine's signature; not used.

        Raises:
            BpuError: Another stage's checkpoint, or missing or unexpected keys.
        """
        checkpoint, stage = self._read_own(filename, map_location), self.settings.stage
        if self._resume and 'message_hub' not in checkpoint:
            raise BpuError(f'checkpoint {filename} holds weights only and cannot be resumed; '
                           'expected one that a run of mmdet_bpu saved. To start from its weights, '
                           'give it as load_from without resume')
        model = self.model.module if is_model_wrapper(self.model) else self.model
        if stage == QAT:
            refuse_other_norms(model, checkpoint['state_dict'], filename)
        if self._resume:
            check_averages(model, checkpoint, filename)
            if stage == QAT:
                refuse_other_scales(model, checkpoint, filename)
        self.call_hook('after_load_checkpoint', checkpoint=checkpoint)
        load_strictly(model, checkpoint['state_dict'], filename)
        self._has_loaded = True
        self.weights_stage = stage
        self.logger.info(f'Load checkpoint from {filename}')
        return checkpoint
