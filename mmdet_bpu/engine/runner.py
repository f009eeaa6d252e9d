"""The runner: a stock mmengine runner that converts the model where it is built."""
import copy
from types import MappingProxyType
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple, Union

import torch
from mmengine.config import Config
from mmengine.model import is_model_wrapper
from mmengine.registry import RUNNERS
from torch import nn

from mmdet_bpu.compat import has_compiled_ext
from mmdet_bpu.datasets.camera_pictures import BYTES
from mmdet_bpu.engine.artifact_detector import ArtifactDetector
from mmdet_bpu.engine.camera_input import byte_camera
from mmdet_bpu.engine.config_errors import field_of, present_files
from mmdet_bpu.engine.data_classes import check_classes, labelled_loaders
from mmdet_bpu.engine.deploy_preprocessing import in_camera_colors
from mmdet_bpu.engine.distillation import distillation_hook, train_reached_alone
from mmdet_bpu.engine.download import connected, fetch_pretrained
from mmdet_bpu.engine.hooks import (BatchNormHook, DueValidationHook, PlainCheckpointHook,
                                    QuantStateHook, RandomStateHook, ScalesHook, StageMetricHook)
from mmdet_bpu.engine.loops.calibration_loop import CalibrationLoop, calibrate
from mmdet_bpu.engine.loops.quant_val_loop import UNQUANTIZED
from mmdet_bpu.engine.loading import check_averages, load_strictly
from mmdet_bpu.engine.prepared import calibrate_again, prepare_from
from mmdet_bpu.engine.process_runner import ProcessRunner
from mmdet_bpu.engine.model_copies import carry_over_quantization, carry_over_repairs
from mmdet_bpu.engine.resuming import leave_out_done_batches, settle_resume
from mmdet_bpu.engine.run_parts import leave_out_incomplete, refuse_incomplete
from mmdet_bpu.engine.scale_group import group_scales
from mmdet_bpu.engine.seeded_data import seeded_dataloader
from mmdet_bpu.engine.settings import BpuSettings
from mmdet_bpu.engine.stage_names import CALIBRATION, FLOAT, QAT, SOURCE_STAGES
from mmdet_bpu.engine.stages import calibration_dataloader, complete_config
from mmdet_bpu.engine.sources import find_source
from mmdet_bpu.engine.unlabelled_data import refuse_unlabelled
from mmdet_bpu.engine.weights import check_stage, read_checkpoint, stage_of
from mmdet_bpu.engine.whole_checkpoints import WholeCheckpointRunner
from mmdet_bpu.errors import BpuError
from mmdet_bpu.families.refusals import refuse_config, refuse_model
from mmdet_bpu.families.fitting_shape import require_fitting_shape
from mmdet_bpu.models.deformable_attention import open_deformable_attention
from mmdet_bpu.models.deformable_convolution import open_deformable_convolution
from mmdet_bpu.quantization import prepare, set_quant_state
from mmdet_bpu.quantization.norm_states import FOLDED
from mmdet_bpu.quantization.saved_norms import refuse_other_norms
from mmdet_bpu.quantization.trained_scales import FIXED, kind_of


@RUNNERS.register_module()
class BPURunner(ProcessRunner, WholeCheckpointRunner):
    """Runner of the stages float, calibration, qat, int and hbm.

    Building the model is: build the stock detector, load float weights, prepare it, load quantized
    weights. So device transfer, DDP, optimizer, EMA and resuming all see the final model. Weights
    come from ``load_from``, else from the newest checkpoint of the stage before; a resumed run
    needs neither.

    Attributes:
        settings (BpuSettings): The validated ``bpu`` key.
        source (str | None): Checkpoint that the model was built with.
        weights_stage (str | None): Stage that the model's weights have reached; None for a float
            model that was not loaded.
        is_training (bool): Whether :meth:`train` is running.
        calibrated_on (dict): Meta data of the images whose statistics give the scales.
        lacking (dict[str, tuple[str]]): What the run cannot do -> config fields that it lacks.
    """

    settings: BpuSettings
    source: Optional[str] = None
    weights_stage: Optional[str] = None
    lacking: Mapping[str, Tuple[str, ...]] = MappingProxyType({})
    is_training = False
    calibrated_on: Mapping[str, Any] = MappingProxyType({})

    @classmethod
    def from_cfg(cls, cfg: Union[Config, dict]) -> 'BPURunner':
        """Complete the config, then build a runner from it.

        Raises:
            BpuError: A detector that cannot be deployed, bad ``bpu`` settings, ``strategy`` or
                ``FlexibleRunner``, no weights to start from, or a checkpoint that does not fit.
        """
        cfg = copy.deepcopy(cfg) if isinstance(cfg, Config) else Config(copy.deepcopy(cfg))
        refuse_config(cfg)
        if byte_camera(complete_config(cfg)) is not None and cfg.get('test_dataloader') is not None:
            cfg.test_dataloader = in_camera_colors(cfg.test_dataloader, BYTES)
        settle_resume(cfg)
        lacking = leave_out_incomplete(cfg)
        runner = super().from_cfg(cfg)
        runner.lacking = lacking
        return runner

    def setup_env(self, env_cfg: Dict) -> None:
        """As in mmengine, with the validated settings at hand."""
        self.settings = complete_config(self.cfg)
        super().setup_env(env_cfg)

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
        if not self._resume:
            self.source = find_source(stage, self.work_dir, self._load_from)
            self._load_from = None  # consumed here
        if self.source is not None:
            checkpoint = read_checkpoint(self.source)
            check_stage(checkpoint, SOURCE_STAGES[stage] + (stage, ), self.source,
                        f'run stage {stage!r}')
            self.weights_stage = stage_of(checkpoint)
            self.logger.info(f'weights of stage {self.weights_stage!r} from {self.source}')
        if stage == FLOAT:
            if checkpoint is not None:
                load_strictly(model, checkpoint['state_dict'], self.source)
            return model
        model = self._quantized(model, checkpoint)
        if stage == QAT:
            train_reached_alone(model, self.settings.qat)
        return model

    def _stock(self, model: Union[nn.Module, Dict]) -> nn.Module:
        """The detector of a config, with what this machine needs in order to run it."""
        model = super().build_model(model)
        if not has_compiled_ext():
            open_deformable_convolution(model)
            if torch.cuda.is_available():
                # Stock deformable attention calls mmcv's op there; on CPU it is plain torch.
                open_deformable_attention(model)
        return model

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

    def register_hooks(self,
                       default_hooks: Optional[Dict] = None,
                       custom_hooks: Optional[List] = None) -> None:
        """Register the configured hooks, and those without which checkpoints and stages fail."""
        super().register_hooks(default_hooks, custom_hooks)
        stage = self.settings.stage
        deployed_float = stage == FLOAT and self.settings.deploy_preprocessing
        own = [
            StageMetricHook('float_deploy' if deployed_float else stage, known=(UNQUANTIZED, )),
            RandomStateHook(),
            DueValidationHook(),
            PlainCheckpointHook(stage),
        ]
        if self.settings.is_quantized:
            own.append(QuantStateHook())
        if stage == QAT and kind_of(self.settings.qat.scales) != FIXED:
            own.append(ScalesHook(self.settings.qat.freeze_scales))
        if stage == QAT and self.settings.qat.batch_norm != FOLDED:
            own.append(BatchNormHook(self.settings.qat.batch_norm))
        for hook in own:
            if not any(isinstance(present, type(hook)) for present in self.hooks):
                self.register_hook(hook)

    def build_train_loop(self, loop: Any) -> Any:
        """Build the training loop on data whose augmentation is seeded per epoch and image."""
        self._train_dataloader = self.seeded(self._train_dataloader)
        loop = super().build_train_loop(loop)
        if self.settings.stage == CALIBRATION and not isinstance(loop, CalibrationLoop):
            raise BpuError("field train_cfg.type: expected 'CalibrationLoop' in stage "
                           f"'calibration', found {type(loop).__name__!r}, which would train")
        return loop

    def build_optim_wrapper(self, optim_wrapper: Any) -> Any:
        """As in mmengine; learned scales get a group of their own."""
        built = super().build_optim_wrapper(optim_wrapper)
        if self.settings.stage == QAT:
            group_scales(built, self.model)
        return built

    def build_dataloader(self, dataloader: Any, *args, **kwargs) -> Any:
        """As in mmengine; absent files and classes that are not the head's are the config's fault."""
        field = field_of(self, dataloader, 'dataloader')
        with present_files(field):
            built = super().build_dataloader(dataloader, *args, **kwargs)
        if field in labelled_loaders(self.settings):
            check_classes(self.cfg, field, built.dataset)
            refuse_unlabelled(field, built.dataset, self.settings.stage)
        return built

    def build_evaluator(self, evaluator: Any) -> Any:
        """As in mmengine; files that are absent are the config's fault."""
        with present_files(field_of(self, evaluator, 'evaluator')):
            return super().build_evaluator(evaluator)

    def seeded(self, dataloader: Any) -> Any:
        """A training dataloader's config with augmentation seeded by this run."""
        return seeded_dataloader(dataloader, self.seed)

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
        checkpoint = read_checkpoint(filename, map_location)
        stage = self.settings.stage
        check_stage(checkpoint, (stage, ), filename, f'go on with stage {stage!r}')
        if self._resume and 'message_hub' not in checkpoint:
            raise BpuError(f'checkpoint {filename} holds weights only and cannot be resumed; '
                           'expected one that a run of mmdet_bpu saved. To start from its weights, '
                           'give it as load_from without resume')
        model = self.model.module if is_model_wrapper(self.model) else self.model
        if stage == QAT:
            refuse_other_norms(model, checkpoint['state_dict'], filename)
        if self._resume:
            check_averages(model, checkpoint, filename)
        self.call_hook('after_load_checkpoint', checkpoint=checkpoint)
        load_strictly(model, checkpoint['state_dict'], filename)
        self._has_loaded = True
        self.weights_stage = stage
        self.logger.info(f'Load checkpoint from {filename}')
        return checkpoint

    def train(self) -> nn.Module:
        """Train, or calibrate, from weights that this stage may start from."""
        stage = self.settings.stage
        if self.settings.is_executable:
            raise BpuError(f'stage {stage!r} is evaluated, not trained')
        if self._train_loop is None:
            refuse_incomplete('train', self.lacking.get('train', ()), stage)
        sources = SOURCE_STAGES[stage] + ((CALIBRATION, ) if self.calibrates_again else ())
        if self.weights_stage not in (None, *sources):
            self._refuse_weights(sources, 'start')
        if self.calibrates_again:
            self._val_loop = None  # it would read images
        if stage == QAT and self.settings.qat.distill is not None:
            self._have_taught()
        self.is_training = True
        try:
            model = super().train()
        finally:
            self.is_training = False
        self.weights_stage = stage
        return model

    def _have_taught(self) -> None:
        """Register the hook of this run's teacher."""
        stock = self._stock(self.cfg.model)
        self.open_synchronized_norms(stock)
        model = self.model.module if is_model_wrapper(self.model) else self.model
        self.register_hook(distillation_hook(model, stock, self.settings.qat, self.source))

    def load_or_resume(self) -> None:
        """As in mmengine; then calibrate, if QAT is about to start from float weights.

        This is the last step before the train loop runs, whatever loop that is.
        """
        super().load_or_resume()
        if self.is_training and self.is_resumed:
            leave_out_done_batches(self.train_loop)
        if not (self.is_training and self.needs_calibration) or self.settings.stage == CALIBRATION:
            return
        self.logger.info('the weights are float ones: calibrating first')
        loader = self.build_dataloader(
            self.seeded(calibration_dataloader(self.cfg)), seed=self.seed)
        calibrate(self.model, loader, self.settings.calibration.num_batches)
        self.weights_stage = CALIBRATION
        carry_over_repairs(self)
        carry_over_quantization(self)

    def val(self) -> dict:
        """Validate a model of this run's stage."""
        self._expect_own_stage('validate', self._val_loop)
        return super().val()

    def test(self) -> dict:
        """Test a model of this run's stage."""
        self._expect_own_stage('test', self._test_loop)
        return super().test()

    def _expect_own_stage(self, purpose: str, loop: Any) -> None:
        stage = self.settings.stage
        if loop is None:
            refuse_incomplete(purpose, self.lacking.get(purpose, ()), stage)
        if self.weights_stage not in (None, stage):
            self._refuse_weights((stage, ), 'evaluate')

    def _refuse_weights(self, expected: tuple, verb: str) -> None:
        raise BpuError(f'checkpoint {self.source} is of stage {self.weights_stage!r}; expected '
                       f'{" or ".join(map(repr, expected))} to {verb} stage '
                       f'{self.settings.stage!r}')
