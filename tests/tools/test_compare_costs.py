"""tools/compare_costs.py"""
import json

import pytest


def test_two_configs_side_by_side(tool, digits_config, tmp_path):
    smaller = tmp_path / 'smaller.py'
    smaller.write_text(f'_base_ = {str(digits_config)!r}\n'
                       'model = dict(encoder=dict(layer_cfg=dict(ffn_cfg=dict('
                       'feedforward_channels=32))))\n')
    done = tool('compare_costs.py', digits_config, smaller, '--march', 'nash-p', '--cores', '2',
                '--out', tmp_path / 'costs.json')
    assert done.code == 0, done.err
    costs = json.loads((tmp_path / 'costs.json').read_text())
    rows = {row['quantity']: row for row in costs['rows']}
    assert (costs['march'], costs['cores']) == ('nash-p', 2)
    for name in ('latency', 'operations', 'DDR read', 'constants', 'bpu.linear'):
        assert rows[name]['second'] < rows[name]['first'] and rows[name]['change'] < 0
    assert rows['throughput of 2 cores']['second'] > rows['throughput of 2 cores']['first']
    line, = (line for line in done.out.splitlines() if line.startswith('latency'))
    assert f'{rows["latency"]["first"]:,.3f}' in line and f'{rows["latency"]["change"]:+.1%}' in line


@pytest.mark.parametrize('arguments, words', [
    (['none.py'], 'none.py'),
    (['{same}', '--cores', '2'], '--cores: expected 1 on nash-e, found 2')])
def test_bad_input(tool, digits_config, arguments, words):
    arguments = [each.format(same=digits_config) for each in arguments]
    done = tool('compare_costs.py', digits_config, *arguments)
    assert (done.code, words in done.err, 'Traceback' in done.err) == (2, True, False), done.err
