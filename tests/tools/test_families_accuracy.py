"""benchmarks/families_accuracy.py: every stage on a few pictures, and what its table says."""
from pathlib import Path

import pytest

from mmdet_bpu import apis
from mmdet_bpu.datasets import pack_coco
from mmdet_bpu.datasets.digits import make_digits
from mmdet_bpu.engine.stages import complete_config
from mmdet_bpu.errors import BpuError

ROOT = Path(__file__).resolve().parents[2]
FEW = ['train_dataloader.batch_size=2', 'model.test_cfg.nms_pre=50',
       'model.test_cfg.score_thr=0.0', 'bpu.calibration.num_batches=1']


@pytest.fixture(scope='module')
def measuring():
    """Modules (families_accuracy, family_training)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / 'benchmarks')
        import families_accuracy
        import family_training
        yield families_accuracy, family_training


@pytest.fixture
def training_on_few(measuring, tool_process, tmp_path, monkeypatch):
    """Function () -> RTMDet, which has moving averages, to train on 4 pictures; the steps that ran."""
    Training = measuring[1].FamilyTraining
    ran = []

    def run(self, name, tool, *arguments):
        done = tool_process(tool, *arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr[-3000:]
        ran.append(name)

    monkeypatch.setattr(Training, 'run', run)
    data = tmp_path / 'data'
    images = make_digits(data / 'images', num_train=4, num_val=2)
    for split in ('train', 'val'):
        pack_coco(images / split, images / 'annotations' / f'{split}.json', data / f'{split}_lmdb')
    return lambda: (Training('rtmdet', tmp_path / 'rtmdet', data, FEW), ran)


def test_every_stage_is_trained_and_evaluated_once(training_on_few, measuring, tmp_path):
    training, ran = training_on_few()
    found = training.measure()
    assert set(found) == set(measuring[0].STAGES)
    assert all(0 <= one['mAP'] <= 1 for one in found.values())
    assert ran == ['train_float', 'test_float', 'train_calibration', 'test_calibration',
                   'train_qat', 'test_qat', 'test_int', 'train_float_control',
                   'test_float_control']
    ran.clear()
    assert training_on_few()[0].measure() == found
    assert ran == []


@pytest.mark.parametrize('family', ['retinanet', 'rtmdet', 'dino'])
def test_the_control_is_qat_without_quantization(family, measuring):
    module = measuring[1]
    config = str(ROOT / 'configs' / 'demo' / f'digits_{family}.py')
    qat, control = (apis.load_config(config, 'qat', options) for options in (
        module.SCHEDULE, [*module.SCHEDULE, *module.AS_FLOAT]))
    for cfg in (qat, control):
        complete_config(cfg)
    assert (qat.bpu.pop('stage'), control.bpu.pop('stage')) == ('qat', 'float')
    assert (qat.train_cfg.pop('type'), control.train_cfg.pop('type')) == (
        'QATLoop', 'EpochBasedTrainLoop')
    assert (qat.val_cfg.pop('type'), control.val_cfg.pop('type')) == ('QuantValLoop', 'ValLoop')
    assert qat.to_dict() == control.to_dict()
    images = 1500
    assert module.STEPS == -(-images // qat.train_dataloader.batch_size)
    assert qat.optim_wrapper.optimizer.lr == pytest.approx(
        apis.load_config(config).optim_wrapper.optimizer.lr / 10)


@pytest.mark.parametrize('family', ['retinanet', 'rtmdet', 'dino'])
def test_nothing_of_the_stock_data_set_is_left(family):
    """``_delete_`` of a base's dict works once."""
    cfg = apis.load_config(str(ROOT / 'configs' / 'demo' / f'digits_{family}.py'))
    assert cfg.val_dataloader == cfg.test_dataloader
    assert cfg.val_evaluator == cfg.test_evaluator == dict(
        type='CocoLMDBMetric', lmdb='data/digits/val_lmdb', metric='bbox')
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        assert set(loader) == {'batch_size', 'num_workers', 'sampler', 'dataset'}
        assert set(loader.dataset) <= {'type', 'lmdb', 'metainfo', 'pipeline', 'test_mode'}


@pytest.mark.parametrize('family', ['retinanet', 'rtmdet', 'dino'])
def test_float_schedule_ends_with_its_decay(family, measuring):
    cfg = apis.load_config(str(ROOT / 'configs' / 'demo' / f'digits_{family}.py'))
    assert max(scheduler['end'] for scheduler in cfg.param_scheduler) == (
        measuring[1].STEPS * cfg.train_cfg.max_epochs)


def stages(measuring, **of_stage):
    """What a family measured: 0.5 in every stage that is not named."""
    return {stage: dict(mAP=of_stage.get(stage, 0.5), mAP50=0.9) for stage in measuring[0].STAGES}


def test_integers_are_held_against_the_better_of_float_and_control(measuring):
    row = measuring[0].row
    assert row('dino', stages(measuring, float_control=0.6, int=0.594), {})['passed']
    assert not row('dino', stages(measuring, float_control=0.6, int=0.593), {})['passed']
    assert not row('dino', stages(measuring, float=0.6, int=0.593), {})['passed']
    assert row('dino', stages(measuring, float=0.6, int=0.63), {})['share'] == 1.05


def test_a_family_that_learned_nothing_has_not_passed(measuring):
    row = measuring[0].row('dino', stages(measuring, float=0.0, float_control=0.0, int=0.0), {})
    assert not row['passed'] and row['share'] == 0.0


def test_table_has_a_line_for_each_family_and_says_which_is_too_low(measuring):
    module = measuring[0]
    rows = [module.row('retinanet', stages(measuring, float=0.51, qat=0.52, int=0.515), {}),
            module.row('dino', stages(measuring, calibration=0.4, int=0.45), {})]
    assert module.table(rows).splitlines()[2:] == [
        '| retinanet | 0.510 | 0.500 | 0.500 | 0.520 | 0.515 | 1.010 |',
        '| dino | 0.500 | 0.500 | 0.400 | 0.500 | 0.450 | 0.900, too low |']


def test_a_failing_step_is_named_with_its_output(measuring, tmp_path):
    training = measuring[1].FamilyTraining('dino', tmp_path, tmp_path)
    with pytest.raises(BpuError, match='(?s)test_int ended with exit code 2.*arguments are required: config'):
        training.run('test_int', 'get_flops.py')
