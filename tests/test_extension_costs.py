"""What docs/architecture.md, "Adding things", promises: how many files an addition touches.

Each addition is made as a developer makes it, in a copy of the package, and then runs from end to
end in a process that imports the copy. Files are counted by comparing the copy with the checkout;
tests and documents do not count.
"""
import filecmp
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mmdet_bpu.errors import BpuError
from tests.conftest import UNCOMPILED

TESTS = Path(__file__).resolve().parent
CHECKOUT = TESTS.parent
PATIENCE = 300  # s

START = '''
from pathlib import Path
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
import mmdet_bpu.registration
from mmdet_bpu.quantization import prepare
from stock_detectors import ToyDetector, calibrate
from toy_chain import run_chain

FOLDER = Path(FOLDER)
IMAGE = torch.randn(1, 3, 4, 6, generator=torch.Generator().manual_seed(0))


def chain(body):
    """Capture, prepare, calibrate, HBIR, integers, interpreter, simulator."""
    torch.manual_seed(0)
    model = ToyDetector(body, dict(conv=nn.Conv2d(3, 3, 1))).eval()
    return run_chain(model, IMAGE, calibrate, FOLDER)
'''


class Copy:
    """A copy of the package that is changed.

    Args:
        folder (Path): Where the copy goes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.package = folder, folder / 'mmdet_bpu'
        shutil.copytree(CHECKOUT / 'mmdet_bpu', self.package,
                        ignore=shutil.ignore_patterns('__pycache__', '.mim'))

    def insert(self, file: str, before: str, text: str) -> None:
        """Put lines before a place of a file."""
        path = self.package / file
        old = path.read_text(encoding='utf-8')
        assert old.count(before) == 1, (file, before)
        path.write_text(old.replace(before, text + before), encoding='utf-8')

    def add(self, file: str, text: str) -> None:
        """Write a new file."""
        path = self.package / file
        assert not path.exists()
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding='utf-8')

    @property
    def touched(self) -> list:
        """Files that the checkout does not have like this, and the other way round."""
        ours, theirs = ({path.relative_to(root).as_posix() for path in root.rglob('*')
                         if path.is_file() and not {'__pycache__', '.mim'} & set(path.parts)}
                        for root in (self.package, CHECKOUT / 'mmdet_bpu'))
        return sorted(ours ^ theirs | {
            name for name in ours & theirs if not filecmp.cmp(
                self.package / name, CHECKOUT / 'mmdet_bpu' / name, shallow=False)})

    def run(self, script: str) -> None:
        """Run Python code in a process that imports the copy; it must end well."""
        environment = {**os.environ, **UNCOMPILED,
                       'PYTHONPATH': f'{self.folder}{os.pathsep}{TESTS}'}
        code = f'FOLDER = {str(self.folder)!r}\n{START}{script}'
        done = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], cwd=self.folder,
                              env=environment, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, done.stderr


def run_here(script: str, folder: Path) -> None:
    """Run Python code with the package as it is."""
    exec(START.replace('from stock_detectors', 'from tests.stock_detectors').replace(
        'from toy_chain', 'from tests.toy_chain') + script, dict(FOLDER=str(folder)))


@pytest.fixture
def copy(tmp_path):
    return Copy(tmp_path)


def promised(what: str) -> int:
    """Files that the table of the document states for an addition."""
    text = (CHECKOUT / 'docs' / 'architecture.md').read_text(encoding='utf-8')
    row = re.search(rf'^\| {re.escape(what)} \| (\d+) ', text, re.M)
    assert row, f'"Adding things" has no row {what!r}'
    return int(row.group(1))


SPELLING = '''
spelled = chain(lambda self, x: torch.positive(self.conv(x)))
plain = chain(lambda self, x: self.conv(x))
assert spelled.kinds == plain.kinds
(one, ), (other, ) = spelled.outputs.values(), plain.outputs.values()
assert torch.equal(one, other) and one.unique().numel() > 10
'''


def test_another_spelling_of_a_torch_function_is_one_line(copy, tmp_path):
    with pytest.raises(BpuError, match='positive'):
        run_here(SPELLING, tmp_path)
    copy.insert('graph/canonical.py', "    'permute': movement.permute,",
                "    'positive': movement.identity,\n")
    copy.run(SPELLING)
    assert len(copy.touched) == promised('another spelling of a torch function') == 1


FUNCTION = '''
run = chain(lambda self, x: F.softsign(self.conv(x)))
assert run.kinds.count('table') == 1 and 'div' not in run.kinds, run.kinds
assert [op['max_lsb'] <= 1 for op in run.comparison['ops'] if op['kind'] == 'table'] == [True]
(real, ), (trained, ) = run.reals.values(), run.trained
torch.manual_seed(0)
x = nn.Conv2d(3, 3, 1)(IMAGE).detach().double()
(scale, ) = (run.program.spec(name).scale for name in run.program.outputs)
away = (trained.double() - x / (1 + x.abs())).abs().max()
assert scale < 0.01 and away < 0.03, (scale, away)  # input, weight and result are int8
assert real.unique().numel() > 20
'''
ROW = "    Function('softsign', form=lambda h, x, p: h.div(x, h.add(h.abs(x), 1.0))),\n"


def test_a_unary_function_is_one_row(copy, tmp_path):
    with pytest.raises(BpuError, match='no integer form of'):
        run_here(FUNCTION, tmp_path)
    copy.insert('program/functions.py', "    Function('log1p'", ROW)
    copy.run(FUNCTION)
    assert len(copy.touched) == promised('a unary function') == 1


FAMILY = '''"""Squares around cells, of one side per cell."""
import numpy as np

from mmdet_bpu.families.base import Family, register
from mmdet_bpu.families.decoding_facts import common_facts
from mmdet_bpu.runtime.candidates import Candidates
from mmdet_bpu.runtime.decoders import decoder
from mmdet_bpu.runtime.facts import NUMBER


@register('SquareHead')
class Squares(Family):
    """Squares around cells."""
    name = 'squares'

    def facts(self, head, test_cfg, input_shape):
        """Facts for :func:`decode`."""
        return dict(common_facts('squares', head, test_cfg, input_shape),
                    stride=head.stride, score_thr=test_cfg.score_thr)


@decoder('squares', dict(stride=NUMBER, score_thr=NUMBER))
def decode(tree, facts):
    """Tree: class logits (1, classes, H, W), logarithms of sides (1, 1, H, W)."""
    logits, sides = (level[0] for level in tree)
    scores = 1 / (1 + np.exp(-logits))
    labels, y, x = np.nonzero(scores > np.float32(facts['score_thr']))
    half = np.exp(sides[0, y, x]) / np.float32(2)
    centers = (np.stack([x, y], 1).astype(np.float32) + 0.5) * np.float32(facts['stride'])
    boxes = np.concatenate([centers - half[:, None], centers + half[:, None]], 1)
    return Candidates(boxes, scores[labels, y, x], labels)
'''
SQUARES = '''
from mmdet.models import DetDataPreprocessor
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.structures import InstanceData
from mmdet_bpu.engine.artifact_detector import ArtifactDetector
from mmdet_bpu.engine.predictors import ArtifactPredictor
from mmdet_bpu.families.base import FAMILIES
from mmdet_bpu.families.contract import deploy_metadata
from mmdet_bpu.lowering.artifact_formats import load_artifact
from mmdet_bpu.lowering.artifacts import to_integers, write_export
from mmdet_bpu.quantization import quantization_of, quantized_graphs


class SquareHead(nn.Module):
    """A user's head, with its post-processing in torch."""
    stride, num_classes, test_cfg = 4, 3, dict(score_thr=0.5)

    def __init__(self):
        super().__init__()
        self.logits, self.sides = nn.Conv2d(8, 3, 1), nn.Conv2d(8, 1, 1)

    def forward(self, x):
        return self.logits(x), self.sides(x)

    def predict_by_feat(self, logits, sides, batch_img_metas=None, rescale=False):
        scores = logits[0].sigmoid()
        labels, y, x = (scores > 0.5).nonzero(as_tuple=True)
        half = sides[0, 0, y, x].exp() / 2
        centers = (torch.stack([x, y], 1) + 0.5) * 4
        boxes = torch.cat([centers - half[:, None], centers + half[:, None]], 1)
        return [InstanceData(bboxes=boxes, scores=scores[labels, y, x], labels=labels)]


class Detector(ToyDetector):
    """A user's detector."""

    def __init__(self):
        super().__init__(lambda self, x: self.neck(x).relu(),
                         dict(neck=nn.Conv2d(3, 8, 4, stride=4)))
        self.bbox_head = SquareHead()


torch.manual_seed(0)
size, mean, std = (32, 48), [120.0, 110.0, 100.0], [60.0, 50.0, 70.0]
picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
image = (torch.from_numpy(picture).float() - torch.tensor(mean)) / torch.tensor(std)
image = image.permute(2, 0, 1)
model = Detector().eval()
assert FAMILIES.of(model).name == 'squares', FAMILIES.of(model).name
cfg = Config(dict(
    bpu=dict(input_shape=size, resize='stretch'),
    model=dict(data_preprocessor=dict(mean=mean, std=std)),
    test_dataloader=dict(dataset=dict(pipeline=[
        dict(type='Resize', scale=size[::-1], keep_ratio=False)]))))
calibrate(prepare(model, dict(input_shape=size)), image[None])
network, = quantization_of(model).networks
metadata = deploy_metadata(cfg, model, network.graph.output_tree, ['a', 'b', 'c'])
write_export(to_integers(quantized_graphs(model), metadata), FOLDER / 'deploy')
executable = load_artifact(FOLDER / 'deploy' / 'model.int.mlir')

model.data_preprocessor = DetDataPreprocessor()
sample = DetDataSample(metainfo=dict(
    img_shape=size, ori_shape=size, batch_input_shape=size, scale_factor=(1.0, 1.0)))
stock = ArtifactDetector(model, executable)(image[None], [sample])[0].pred_instances
order = torch.argsort(stock.scores, descending=True, stable=True)
host = ArtifactPredictor(executable, 'host').predict(picture)
assert len(order) > 20 and len(set(stock.labels.tolist())) == 3
np.testing.assert_allclose(host.boxes, stock.bboxes[order].numpy(), rtol=0, atol=1e-3)
np.testing.assert_allclose(host.scores, stock.scores[order].numpy(), rtol=1e-6)
assert host.labels.tolist() == stock.labels[order].tolist()
'''


def test_a_family_is_one_file_decoded_by_its_head_and_by_numpy(copy, tmp_path):
    with pytest.raises(AssertionError, match='generic'):
        run_here(SQUARES, tmp_path)
    copy.add('families/squares.py', FAMILY)
    copy.run(SQUARES)
    assert len(copy.touched) == promised('a family of detectors') == 1


OBSERVER = '''

@OBSERVERS.register_module(name='power_of_two')
class PowerOfTwoObserver(MinMaxObserver):
    """As min-max, widened to a power of two."""

    def scale(self, integer_range):
        exact = super().scale(integer_range)
        return None if exact is None else 2.0**torch.tensor(exact).log2().ceil().item()


'''
OBSERVED = '''
from mmdet_bpu.engine.settings import validate_settings
from mmdet_bpu.quantization import quantized_graphs

settings = validate_settings(dict(
    stage='calibration', input_shape=(4, 6), calibration=dict(observer='power_of_two'))).as_dict()
torch.manual_seed(0)
model = ToyDetector(lambda self, x: self.conv(x).exp(), dict(conv=nn.Conv2d(3, 3, 1))).eval()
network, = quantized_graphs(calibrate(prepare(model, settings), IMAGE))
scales = [float(row['scale']) for row in network.rows if np.ndim(row['scale']) == 0]
assert len(scales) >= 3 and all(np.frexp(scale)[0] == 0.5 for scale in scales), scales
largest = IMAGE.abs().max() / 127
(image, ) = [row['scale'] for row in network.rows if row['site'] == 'image']
assert largest <= image < 2 * largest
'''


def test_an_observer_is_one_class_in_one_file(copy, tmp_path):
    with pytest.raises(BpuError, match="found 'power_of_two'"):
        run_here(OBSERVED, tmp_path)
    copy.insert('quantization/criteria.py', 'def squared_errors(', OBSERVER.lstrip())
    copy.run(OBSERVED)
    assert len(copy.touched) == promised('an observer') == 1


FORMAT_ROW = """    ArtifactFormat('packed', '.packed', 'model.packed',
                   'mmdet_bpu.lowering.packed_text:load', 'mmdet_bpu.lowering.packed_text:write'),
"""
FORMAT = '''"""The integer module, compressed."""
import lzma

from mmdet_bpu.executors.interpreter import Interpreter
from mmdet_bpu.hbir.integer_program import program_from_module
from mmdet_bpu.hbir.text import parse_text, print_text


def write(exported, path):
    """Write ``exported``."""
    path.write_bytes(lzma.compress(print_text(exported.integer).encode()))


def load(path):
    """Read it again."""
    return Interpreter(program_from_module(parse_text(lzma.decompress(path.read_bytes()).decode())))
'''
EXPORTED = '''
import contextlib
import io
import runpy
import sys
from mmdet_bpu.engine.settings import validate_settings
from mmdet_bpu.lowering.artifact_formats import load_artifact
from mmdet_bpu.lowering.artifacts import to_integers, write_export
from mmdet_bpu.quantization import quantized_graphs

torch.manual_seed(0)
model = ToyDetector(lambda self, x: self.conv(x).exp(), dict(conv=nn.Conv2d(3, 3, 1))).eval()
exported = to_integers(quantized_graphs(calibrate(prepare(model, dict(input_shape=(4, 6))), IMAGE)))
paths = write_export(exported, FOLDER / 'deploy', ['int', 'packed'])
assert paths['model.packed'].read_bytes()[:6] == bytes.fromhex('fd377a585a00')  # of the xz format
packed, plain = (load_artifact(paths[name]) for name in ('model.packed', 'model.int.mlir'))
levels = torch.randint(-128, 128, (1, 4, 6, 3)).to(torch.int8)
one, other = (each.run({'image': levels}) for each in (packed, plain))
assert one and all(torch.equal(one[name], other[name]) for name in one)

assert validate_settings(dict(stage='packed')).is_executable
for tool in ('export_hbir', 'test'):  # both commands take it
    sys.argv, out = [tool, '--help'], io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        runpy.run_path(f'{TOOLS}/{tool}.py', run_name='__main__')
    assert 'packed' in out.getvalue(), out.getvalue()
'''


def test_an_export_format_is_a_row_and_a_module(copy, tmp_path):
    tools = f'TOOLS = {str(CHECKOUT / "tools")!r}\n'
    with pytest.raises(BpuError, match="parameter formats: expected of int, onnx, found 'packed'"):
        run_here(tools + EXPORTED, tmp_path)
    copy.insert('lowering/artifact_formats.py', "    ArtifactFormat('hbm',", FORMAT_ROW)
    copy.add('lowering/packed_text.py', FORMAT)
    copy.run(tools + EXPORTED)
    assert len(copy.touched) == promised('an export format') == 2


KERNELS = '''"""Tables of int16 without looking a value up twice."""
from mmdet_bpu.kernels.kernel_set import KernelSet, register
from mmdet_bpu.kernels.registry import KERNELS

EXACT = register(KernelSet('exact'))


def only_si16(operands, attrs):
    """The reference's plan, for int16."""
    return KERNELS['bpu.table'].plan(operands, attrs) if operands[0].dtype == 'si16' else None


@EXACT.kernel('bpu.table', only_si16)
def table(inputs, attrs, plan):
    """Looked up once per value that occurs."""
    values, where = inputs[0].unique(return_inverse=True)
    found, = plan([values, *inputs[1:]])
    return [found.flatten()[where.flatten()].reshape(inputs[0].shape)]
'''
KERNEL_SET = '''
from mmdet_bpu.executors.interpreter import Interpreter
from mmdet_bpu.executors.simulator import HbmSimulator

run = chain(lambda self, x: self.conv(x).exp() + x)
levels = torch.randint(-128, 128, (1, 4, 6, 3)).to(torch.int8)
expected = Interpreter(run.program).run({'image': levels})
for executable in (Interpreter(run.program, kernels='exact'),
                   HbmSimulator(FOLDER / 'model.hbm', kernels='exact')):
    found = executable.run({'image': levels})
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert executable.kernel_counts['exact'] == {'bpu.table': 1}
    assert executable.kernel_counts['reference']['bpu.conv2d'] == 1
'''


def test_a_kernel_set_is_one_folder(copy, tmp_path):
    with pytest.raises(BpuError, match="unknown kernel set 'exact'"):
        run_here(KERNEL_SET, tmp_path)
    copy.add('kernels/exact/__init__.py', KERNELS)
    copy.run(KERNEL_SET)
    folders = {Path(name).parent.as_posix() for name in copy.touched}
    assert folders == {'kernels/exact'} and promised('a kernel set') == 1
