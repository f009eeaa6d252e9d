"""tools/get_flops.py"""
import json
from pathlib import Path

VENDOR = Path(__file__).parents[2] / 'configs/deformable_detr/deformable-detr_r50_vendor_float.py'


def test_modules_total_and_json(tool, digits_config, tmp_path):
    done = tool('get_flops.py', digits_config, '--shape', 96, 128, '--depth', 1,
                '--out', tmp_path / 'count.json')
    assert done.code == 0, done.err
    written = json.loads((tmp_path / 'count.json').read_text())
    assert written['shape'] == [96, 128] and written['flops'] == 2 * written['macs']
    products = [op['macs'] for op in written['ops'] if op['kind'] != 'grid_sample']
    assert written['macs'] == sum(products)
    assert f'{written["macs"] / 1e9:.4f} GMAC' in done.out and 'backbone ' in done.out


def test_the_shape_of_the_config_is_the_default(tool, digits_config):
    assert 'input 1 x 3 x 128 x 128' in tool('get_flops.py', digits_config).out


def test_the_vendors_variant_stands_beside_what_is_published(tool):
    done = tool('get_flops.py', VENDOR, '--shape', 64, 64,
                '--published', 'Deformable_detr_resnet50')
    assert done.code == 0, done.err
    assert '1 x 3 x 800 x 1333: 425.65 GOPs; ours:' in done.out
    assert 'not comparable: at 64 x 64' in done.out


def test_bad_input(tool, digits_config):
    assert tool('get_flops.py', 'none.py').code == 2
    done = tool('get_flops.py', digits_config, '--shape', 8, 8)
    assert (done.code, 'expected at least 32 px' in done.err) == (2, True)
