"""The runner: a stock mmengine runner that converts the model where it is built."""
import copy
from types import MappingProxyType
from typing import Any, Dict, List, Mapping, Optional, Tuple, Union

from mmengine.config import Config
from mmengine.model import is_model_wrapper
from mmengine.registry import RUNNERS
from torch import nn

from mmdet_bpu.datasets.camera_pictures import BYTES
from mmdet_bpu.engine.camera_input import byte_camera
from mmdet_bpu.engine.config_errors import field_of, present_files
from mmdet_bpu.engine.data_classes import check_classes, labelled_loaders
from mmdet_bpu.engine.deploy_preprocessing import in_camera_colors
from mmdet_bpu.engine.distillation import distillation_hook
from mmdet_bpu.engine.hooks import (BatchNormHook, DueValidationHook, PlainCheckpointHook,
                                    QuantStateHook, RandomStateHook, ScalesHook, StageMetricHook)
from mmdet_bpu.engine.loops.calibration_loop import CalibrationLoop, calibrate
from mmdet_bpu.engine.loops.quant_val_loop import UNQUANTIZED
from mmdet_bpu.engine.model_copies import carry_over_quantization, carry_over_repairs
from mmdet_bpu.engine.resuming import leave_out_done_batches, settle_resume
from mmdet_bpu.engine.run_parts import leave_out_incomplete, refuse_incomplete
from mmdet_bpu.engine.scale_group import group_scales
from mmdet_bpu.engine.seeded_data import seeded_dataloader
from mmdet_bpu.engine.stage_names import CALIBRATION, FLOAT, QAT, SOURCE_STAGES
from mmdet_bpu.engine.stages import calibration_dataloader, complete_config
from mmdet_bpu.engine.staged_model import StagedModelRunner
from mmdet_bpu.engine.trained_colors import warn_of_other_colors
from mmdet_bpu.engine.unlabelled_data import refuse_unlabelled
from mmdet_bpu.engine.whole_checkpoints import WholeCheckpointRunner
from mmdet_bpu.errors import BpuError
from mmdet_bpu.families.refusals import refuse_config
from mmdet_bpu.quantization.norm_states import FOLDED


@RUNNERS.register_module()
class BPURunner(StagedModelRunner, WholeCheckpointRunner):
    """Runner of the stages float, calibration, qat, int and hbm.

    Attributes:
        is_training (bool): Whether :meth:`train` is running.
        lacking (dict[str, tuple[str]]): What the run cannot do -> config fields that it lacks.
    """

    lacking: Mapping[str, Tuple[str, ...]] = MappingProxyType({})
    is_training = False

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
            PlainCheckpointHook(stage, self.settings.input_format),
        ]
        if self.settings.is_quantized:
            own.append(QuantStateHook())
        if stage == QAT and self.settings.qat.scales_move:
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
        hook = distillation_hook(model, stock, self.settings.qat, self.source)
        if hook.given and hook.teacher.meta is not None:
            warn_of_other_colors(hook.teacher.meta, self.settings.input_format, hook.given)
        self.register_hook(hook)

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
