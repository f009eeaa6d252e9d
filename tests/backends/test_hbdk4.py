"""The vendor road against a stand-in package with the published signatures."""
import json
from contextlib import ExitStack

import pytest

from mmdet_bpu.backends import hbdk4
from mmdet_bpu.backends.choice import choose_backend
from mmdet_bpu.errors import BpuError
from tests.vendor_stand_in import installed

COMPILER = '''
import json, pathlib
CALLS = []
class Argument:
    def __init__(self, name, function):
        self.name, self.function = name, function
    def insert_image_preprocess(self, mode: str, divisor: int, mean, std, is_signed: bool = True):
        CALLS.append(('insert_image_preprocess', self.name, mode, divisor, mean, std, is_signed))
        self.function.inputs = [Argument(self.name, self.function)]
    def insert_image_convert(self, mode: str = 'nv12'):
        assert self is self.function.inputs[0]  # not the argument that was replaced
        CALLS.append(('insert_image_convert', self.name, mode))
        self.function.inputs = [Argument(self.name + end, self.function) for end in ('_y', '_uv')]
class Function:
    def __init__(self):
        self.inputs = [Argument('image', self)]
class Module:
    def __init__(self, text):
        self.text = text
        self.functions = [Function()]
    @classmethod
    def parse(cls, asm: str):
        CALLS.append(('parse', asm))
        return cls(asm)
def load(path: str):
    CALLS.append(('load', path))
    return Module(pathlib.Path(path).read_text())
def convert(m, march, advice=False, advice_path='', **kwargs):
    assert isinstance(m, Module) and isinstance(march, str)
    CALLS.append(('convert', march, kwargs))
    if 'refuse' in m.text:
        raise RuntimeError('hbir.softmax is illegal')
    return m
def compile(m, path: str, march, opt: int = 2, jobs: int = 4, **kwargs):
    assert isinstance(m, Module) and isinstance(path, str)
    CALLS.append(('compile', path, march, opt, jobs, kwargs))
    if 'silent' not in m.text:
        pathlib.Path(path).write_bytes(b'vendor')
def hbm_perf(model: str, output_dir: str = None):
    CALLS.append(('hbm_perf', model, output_dir))
    folder = pathlib.Path(output_dir)
    (folder / 'model.json').write_text(json.dumps({'summary': {'performance': {'FPS': 4.5}}}))
    (folder / 'model.html').write_text('<html></html>')
'''


@pytest.fixture
def vendor(tmp_path):
    """Installs the stand-in and gives its module; ``without`` drops names from it."""
    with ExitStack() as stack:

        def install(*without):
            dropped = ''.join(f'del {name}\n' for name in without)
            return stack.enter_context(installed(tmp_path / 'site', COMPILER + dropped))

        yield install


def test_the_calls_are_the_published_ones_in_order(vendor, tmp_path):
    compiler = vendor()
    path = tmp_path / 'model.hbm'
    report = hbdk4.compile_for_board('module {}', path, 'nash-e', perf_dir=tmp_path / 'perf')
    assert compiler.CALLS == [
        ('parse', 'module {}'), ('convert', 'nash-e', {}),
        ('compile', str(path), 'nash-e', 2, 4, {}),
        ('hbm_perf', str(path), str(tmp_path / 'perf'))]
    assert path.read_bytes() == b'vendor'
    assert report['summary']['performance']['FPS'] == 4.5


def camera(**changes):
    stage = dict(color_order='rgb', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375],
                 camera=dict(format='nv12', range='video', matrix='bt601', by='network'))
    stage['camera'].update(changes)
    return stage


@pytest.mark.parametrize('stage, calls', [
    (camera(), [('insert_image_preprocess', 'image', 'yuvbt601video2rgb', 1,
                 [123.675, 116.28, 103.53], [58.395, 57.12, 57.375], True),
                ('insert_image_convert', 'image', 'nv12')]),
    (dict(camera(format='yuv444', matrix='bt709'), color_order='yuv', mean=[128.0] * 3, std=[128.0] * 3),
     [('insert_image_preprocess', 'image', 'skip', 1, [0.0] * 3, [128.0] * 3, True)])])
def test_a_camera_s_conversion_is_inserted_by_the_vendor_before_it_converts(vendor, tmp_path, stage,
                                                                           calls):
    compiler = vendor()
    hbdk4.compile_for_board('module {}', tmp_path / 'model.hbm', 'nash-e', camera=stage)
    assert compiler.CALLS[1:-2] == calls
    assert [call[0] for call in compiler.CALLS[-2:]] == ['convert', 'compile']


def test_bt709_is_refused_before_the_vendor_sees_it(vendor, tmp_path):
    vendor()
    with pytest.raises(BpuError, match="matrix: expected 'bt601' for HBIR"):
        hbdk4.compile_for_board('module {}', tmp_path / 'model.hbm', 'nash-e',
                                camera=camera(matrix='bt709'))


def test_a_version_that_cannot_insert_is_refused(vendor, tmp_path):
    vendor('Argument.insert_image_convert')
    with pytest.raises(BpuError, match='expected one input with insert_image_convert'):
        hbdk4.compile_for_board('module {}', tmp_path / 'model.hbm', 'nash-e', camera=camera())


def test_text_goes_through_a_file_where_there_is_no_parser(vendor, tmp_path):
    compiler = vendor('Module.parse')
    hbdk4.compile_for_board('module {}', tmp_path / 'model.hbm', 'nash-p', jobs=2)
    assert [call[0] for call in compiler.CALLS] == ['load', 'convert', 'compile']
    assert compiler.CALLS[0][1].endswith('.mlir')
    assert not list(tmp_path.glob('*.mlir'))


def test_a_refusal_of_the_vendor_is_an_error_with_its_words(vendor, tmp_path):
    vendor()
    with pytest.raises(BpuError, match='convert it for nash-e: RuntimeError: hbir.softmax is'):
        hbdk4.compile_for_board('refuse', tmp_path / 'model.hbm', 'nash-e')


def test_a_compiler_that_writes_nothing_is_noticed(vendor, tmp_path):
    vendor()
    with pytest.raises(BpuError, match='wrote no'):
        hbdk4.compile_for_board('silent', tmp_path / 'model.hbm', 'nash-e')


def test_a_version_without_a_function_is_refused_by_its_name(vendor, tmp_path):
    vendor('hbm_perf')
    with pytest.raises(BpuError, match='has no hbm_perf'):
        hbdk4.compile_for_board('module {}', tmp_path / 'model.hbm', 'nash-e')


def test_auto_takes_the_vendor_s_compiler_where_it_is_installed(vendor):
    assert choose_backend('auto') == 'sim'
    vendor()
    assert hbdk4.available()
    assert choose_backend('auto') == choose_backend('hbdk4') == 'hbdk4'
    assert choose_backend('sim') == 'sim'


def test_asking_for_the_vendor_s_compiler_without_it_says_what_to_do():
    with pytest.raises(BpuError, match="not installed.*parameter backend='sim'"):
        choose_backend('hbdk4')
    with pytest.raises(BpuError, match='not installed'):
        hbdk4.compile_for_board('module {}', 'model.hbm', 'nash-e')


def test_an_unreadable_performance_report_is_no_report(tmp_path):
    (tmp_path / 'a.json').write_text('{')
    (tmp_path / 'b.json').write_text(json.dumps([1]))
    assert hbdk4.read_perf_report(tmp_path) == {}
