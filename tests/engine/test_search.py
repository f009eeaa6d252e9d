"""A search for a tiny detector's dtypes: kept, refused, and inherited by a config."""
import json
from dataclasses import replace

import pytest

from mmdet_bpu import apis
from mmdet_bpu.engine.stages import load_config
from mmdet_bpu.engine.training import train
from mmdet_bpu.errors import BpuError

FEW = dict(evaluations=3, images=2, first_order_images=2)


@pytest.fixture(scope='module')
def calibration(trained):
    return str(trained / 'tiny_calibration' / 'epoch_1.pth')


@pytest.fixture(scope='module')
def found(staged, calibration, tmp_path_factory):
    """(folder, result) of a search that measures what it begins with."""
    folder = tmp_path_factory.mktemp('search')
    cfg = staged('calibration', folder / 'w')
    return folder, apis.search(cfg, calibration, folder, apis.Bound(), **FEW)


def test_what_it_begins_with(found):
    _, result = found
    names = {point.name: point for point in result.points}
    assert set(names) == {'template', 'int8 everywhere', 'int16 wherever it can be'}
    assert names['int8 everywhere'].latency_ms < names['template'].latency_ms \
        < names['int16 wherever it can be'].latency_ms
    assert names['int8 everywhere'].wide == 0
    assert result.met and 0 <= result.chosen.mean_ap <= 1


def test_a_latency_is_that_of_the_compiled_checkpoint(found, staged, calibration, tmp_path):
    from mmdet_bpu.compiler.compile import compile_network
    from mmdet_bpu.hbir.integer_program import program_from_module
    _, result = found
    integer = apis.export_hbir(staged('calibration', tmp_path), calibration).integer
    _, estimate = compile_network(program_from_module(integer), result.march)
    assert result.template.latency_ms == pytest.approx(estimate.latency_ms, rel=1e-9)


def test_the_command_goes_on_and_a_target_that_cannot_be_met(found, tool_process, tiny_config,
                                                            calibration):
    folder, result = found
    before = (folder / 'search_cache.json').read_bytes()
    done = tool_process('analyze_quant.py', 'search', tiny_config, calibration, '--out', 'out',
                        '--work-dir', '.', '--target-map', '1', '--max-latency', '1e-6',
                        '--evaluations', '3', '--images', '2', '--first-order-images', '2', cwd=folder)
    assert done.returncode == 2 and 'Traceback' not in done.stderr, done.stderr[-2000:]
    assert 'error: no setting was found with mAP of at least 1.0 and at most 1e-06 ms; the best one, mAP' \
        in done.stderr
    assert f'No dtypes take less than {result.cheapest_ms:.4f} ms: ask for a longer latency' in done.stderr
    assert (folder / 'search_cache.json').read_bytes() == before
    written = json.loads((folder / 'out' / 'search.json').read_text())
    assert not written['met'] and len(written['points']) == len(result.points)
    assert {path.name for path in (folder / 'out').iterdir()} == {
        'search.json', 'search.csv', 'search.html', 'searched_qconfig.py'}


def test_a_config_inherits_the_rules(found, tiny_config, calibration, tmp_path):
    _, result = found
    name = next(name for name, dtype in result.template.setting.items()
                if dtype == 'int16' and name.startswith('encoder'))
    other = replace(result, rules=[dict(site=name, dtype='int8')], reasons={name: 'why'})
    apis.write_search(other, tmp_path)
    (tmp_path / 'mine.py').write_text(
        f"_base_ = [{str(tiny_config)!r}, './searched_qconfig.py']\n"
        'bpu = dict(qconfig={{_base_.searched_qconfig}})\n')
    cfg = load_config(str(tmp_path / 'mine.py'), 'calibration')
    assert cfg.bpu.qconfig == other.rules
    train(cfg, str(tmp_path / 'w'), from_statistics=calibration)
    model = apis.load_quantized(load_config(str(tmp_path / 'mine.py'), 'calibration'),
                                str(tmp_path / 'w' / 'epoch_1.pth'))
    assert model.quant.quantizer(name).dtype == 'int8'


def test_what_cannot_be_searched(staged, trained, calibration, tmp_path):
    cfg = staged('calibration', tmp_path)
    with pytest.raises(BpuError, match='holds no statistics of a calibration'):
        apis.search(cfg, str(trained / 'tiny_qat' / 'epoch_2.pth'), tmp_path, apis.Bound())
    with pytest.raises(BpuError, match='parameter evaluations: expected a positive number'):
        apis.search(cfg, calibration, tmp_path, apis.Bound(), evaluations=0)
    cfg.val_evaluator = None
    with pytest.raises(BpuError, match='field val_evaluator: expected what mAP is measured by'):
        apis.search(cfg, calibration, tmp_path, apis.Bound())
