"""Cells of the accuracy benchmark (set, model, seed, method), kept with what made them."""
import hashlib
import json
import shutil
import sys
from functools import cached_property
from pathlib import Path
from typing import Any, List, NamedTuple, Optional, Sequence

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / 'tools'))

from demo import Demo  # noqa: E402

from accuracy_methods import (CONTROL, FEW, IMAGES, METHODS, SEARCHED, TRAINED,  # noqa: E402
                              Method)
from accuracy_results import read_cell  # noqa: E402
from accuracy_sets import QAT_BATCH, SPLITS, PackedSet  # noqa: E402

from mmdet_bpu import apis  # noqa: E402
from mmdet_bpu.compiler.estimate import COST_MODEL_VERSION  # noqa: E402
from mmdet_bpu.output_folder import write_json  # noqa: E402
from mmdet_bpu.version import __version__  # noqa: E402

AS_DEPLOYED = ['--deploy-preprocessing']
AS_FLOAT = ['bpu.stage=float', 'bpu.deploy_preprocessing=True', 'val_cfg.type=ValLoop',
            'train_cfg.type=EpochBasedTrainLoop']
BATCH = f'train_dataloader.batch_size={QAT_BATCH}'
CALIBRATED_ON = [f'bpu.calibration.num_batches={FEW}', BATCH]


def digest(*inputs: Any) -> str:
    """SHA-256 of what something was made of."""
    return hashlib.sha256('\n'.join(map(str, inputs)).encode()).hexdigest()


class Made(NamedTuple):
    """A checkpoint or artefact, the digest of what it was made of, and its config."""
    path: Path
    inputs: str
    config: Path


class Cells(Demo):
    """The cells of one set, model and seed.

    Args:
        data (PackedSet): To train on and to evaluate.
        model (str): One of :data:`accuracy_sets.MODELS`.
        seed (int): Of float training, and of all that follows.
        work_dir (Path): Where everything is written.
        results (Path): Folder of the cells.
        epochs (int, optional): Of float training. Defaults to the config's.
        overrides (Sequence[str]): Of the config, ``KEY=VALUE``, in every step.
    """

    def __init__(self, data: PackedSet, model: str, seed: int, work_dir: Path, results: Path,
                 epochs: Optional[int] = None, overrides: Sequence[str] = ()) -> None:
        self.packed, self.model, self.seed, self.results = data, model, seed, results
        folder = work_dir.resolve() / f'{data.name}-{model}-{seed}'
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(folder, data.folder.resolve())
        self.overrides = [*overrides, f'randomness.seed={seed}']
        self.config = data.config(model, folder / 'config.py', epochs)
        apis.load_config(str(self.config), 'float', self.overrides)  # refuses what is wrong with them

    def options(self) -> List[str]:
        """The data, then the overrides."""
        return [*super().options(), *self.overrides]

    def cell(self, method: str) -> dict:
        """A cell: made, or as it was kept if it was made of the same."""
        file = self.results / f'{self.packed.name}-{self.model}-{self.seed}-{method}.json'
        how = METHODS[method]
        costs = [COST_MODEL_VERSION] if how.start == SEARCHED else []
        inputs = digest(self._float_inputs(), self._schedule(), CALIBRATED_ON, *how, *costs)
        if file.is_file():
            kept = read_cell(file)
            if kept['inputs'] == inputs and self._is_of_today(kept):
                return kept
        trained = self._trained('float', 'float', None)
        metrics = {'float': self._tested('float', 'float', trained)}
        if how.start == CONTROL:
            control = self._trained(method, 'qat', trained,
                                    [*self._schedule(), *AS_FLOAT, *how.overrides])
            metrics['control'] = self._tested(method, 'float', control)
        else:
            made = self._quantized(method, how, trained)
            for stage in ('int', *(['hbm'] if how.hbm else [])):
                model = made if stage == 'int' else self._compiled(method, made)
                metrics[stage] = self._tested(f'{stage}_{method}', stage, model)
        cell = dict(set=self.packed.name, model=self.model, seed=self.seed, method=method,
                    overrides=[*how.overrides], metrics={
                        name: {key: found[key] for key in ('mAP', 'mAP50')}
                        for name, found in metrics.items()},
                    mmdet_bpu=__version__, inputs=inputs,
                    **({} if how.start == CONTROL else dict(dtypes=self.dtypes)))
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, cell)
        return cell

    @cached_property
    def dtypes(self) -> str:
        """str: Digest of the dtypes that today's template gives the model's tensors."""
        rows = apis.sites_of(apis.load_config(str(self.config), 'int', self.overrides))
        return digest(*((row['site'], row['dtype']) for row in rows))

    def _is_of_today(self, kept: dict) -> bool:
        """Whether a cell's model had the dtypes that it would have now; a control has none."""
        return METHODS[kept['method']].start == CONTROL or kept.get('dtypes') == self.dtypes

    def _quantized(self, method: str, how: Method, trained: Made) -> Made:
        """The checkpoint whose integers are evaluated."""
        if how.start == IMAGES:
            return self._trained(method, 'calibration', trained, [*CALIBRATED_ON, *how.overrides])
        base = self._trained('calibration', 'calibration', trained, CALIBRATED_ON)
        if how.start == TRAINED:
            return self._trained(method, 'qat', base, [*self._schedule(), *how.overrides])
        if how.start == SEARCHED:
            base = self._searched(base)
        elif not how.overrides:
            return base
        return self._trained(method, 'calibration', base, how.overrides,
                             ['--from-statistics', base.path])

    def _searched(self, base: Made) -> Made:
        """The same checkpoint, with a config that has the rules that a search chose."""
        out = self.folder / 'searched'  # the step that is called search has the other folder
        inputs = digest(base.inputs, COST_MODEL_VERSION)
        self._forget_other('search', out, inputs)
        self.step('search', out / 'searched_qconfig.py', lambda: self.run(
            'search', 'analyze_quant.py', 'search', base.config, base.path, '--out', out,
            *self.options()))
        config = self.folder / 'searched.py'
        config.write_text(f"_base_ = [{str(base.config)!r}, "
                          f"{str(out / 'searched_qconfig.py')!r}]\n"
                          'bpu = dict(qconfig={{_base_.searched_qconfig}})\n', encoding='utf-8')
        return Made(base.path, inputs, config)

    def _schedule(self) -> List[str]:
        """The stage's own recipe, 6 epochs with the decay at 5, on fewer steps."""
        epochs, steps = self.packed.qat_epochs, self.packed.qat_steps
        return [BATCH, f'train_cfg.max_epochs={epochs}', f'train_cfg.val_interval={epochs}',
                'param_scheduler.0.by_epoch=False', f'param_scheduler.0.end={steps * epochs}',
                f'param_scheduler.0.milestones=[{steps * epochs * 5 // 6}]']

    def _float_inputs(self) -> str:
        from mmengine.config import Config
        data = [self.packed.store(split).identity for split in SPLITS]
        config = json.dumps(Config.fromfile(self.config).to_dict(), sort_keys=True)
        return digest(config, data, self.overrides)

    def _trained(self, name: str, stage: str, source: Optional[Made],
                 overrides: Sequence[str] = (), arguments: Sequence[Any] = ()) -> Made:
        """A step's checkpoint, made again only if it is to be made of something else."""
        config = source.config if source else self.config
        dtypes = [] if stage == 'float' or AS_FLOAT[0] in overrides else [self.dtypes]
        inputs = digest(self._float_inputs(), stage, overrides, source and source.inputs, *dtypes)
        self._forget_other(f'train_{name}', self.folder / name, inputs)
        path = self.train(name, config, source and source.path, ['--stage', stage, *arguments],
                          overrides)
        return Made(path, inputs, config)

    def _tested(self, name: str, stage: str, made: Made) -> dict:
        self._forget_other(f'test_{name}', self.folder / name / 'metrics.json',
                           digest(made.inputs, stage))
        return self.test(name, made.config, made.path, AS_DEPLOYED if stage == 'float' else (),
                         stage)

    def _compiled(self, method: str, made: Made) -> Made:
        out = self.folder / f'deploy_{method}'
        self._forget_other(f'deploy_{method}', out, made.inputs)
        self.step(f'deploy_{method}', out / 'model.hbm', lambda: self.run(
            f'deploy_{method}', 'deploy_bpu.py', made.config, made.path, '--out', out))
        return Made(out / 'model.hbm', made.inputs, made.config)

    def _forget_other(self, step: str, result: Path, inputs: str) -> None:
        """Set the result of a step that was made of other inputs aside, then note these."""
        self.ran = False  # what follows a step is looked at by its inputs
        note = self.folder / f'{step}.inputs'
        if not note.is_file() or note.read_text(encoding='utf-8') != inputs:
            self.state.pop(step, None)
            if result.exists():
                aside = result.with_name(f'{result.name}.before')
                remove(aside)
                result.rename(aside)
                print(f'[{step}] what was made of other inputs is in {aside}, until the next such change',
                      flush=True)
            note.write_text(inputs, encoding='utf-8')


def remove(path: Path) -> None:
    """A file, or a folder with all that is in it, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
