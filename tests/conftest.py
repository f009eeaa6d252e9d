"""What every test may rely on: one thread, the checkout first, and a real installation."""
import functools
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import pytest
from hypothesis import settings

CHECKOUT = Path(__file__).resolve().parents[1]
TOOL_PATIENCE = 300  # s, of one command on a busy machine
# A copy of the package would compile its loops anew, which takes a minute and is tested elsewhere.
UNCOMPILED = {'MMDET_BPU_NO_NUMBA': '1'}

# Before any test imports torch: the runner starts one process per core, and results that depend on
# the order of a threaded sum would differ between machines.
for variable in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS'):
    os.environ.setdefault(variable, '1')
# Tools that tests start as processes import this checkout, not an installed copy.
os.environ['PYTHONPATH'] = str(CHECKOUT)

settings.register_profile('suite', deadline=None, derandomize=True)
settings.load_profile('suite')


@pytest.fixture(scope='session')
def source_copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the package is built from, so that building leaves the checkout as it is."""
    folder = tmp_path_factory.mktemp('source') / 'mmdet_bpu'
    folder.mkdir()
    for name in ('mmdet_bpu', 'configs', 'tools', 'requirements'):
        shutil.copytree(CHECKOUT / name, folder / name,
                        ignore=shutil.ignore_patterns('__pycache__', '.mim'))
    for path in CHECKOUT.iterdir():
        if path.is_file() and not path.name.startswith('.'):
            shutil.copy2(path, folder)
    return folder


@pytest.fixture(scope='session')
def wheel(source_copy: Path) -> Path:
    """The package's wheel, built without isolation and without network."""
    target = source_copy.parent / 'wheel'
    subprocess.run([sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '--no-index',
                    '--no-build-isolation', '-w', target, source_copy], check=True)
    return next(target.glob('*.whl'))


@pytest.fixture(scope='session')
def installed_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of a new environment with a non-editable install of this checkout.

    All other packages are those of the running environment. Start it with ``PYTHONPATH`` removed
    and outside the checkout (see ``installed_environment``), or the checkout shadows the install.
    """
    folder = tmp_path_factory.mktemp('installed')
    venv.create(folder, symlinks=True)
    python = folder / 'bin' / 'python'
    site = Path(sysconfig.get_path('purelib', vars={'base': str(folder)}))
    (site / 'running_environment.pth').write_text(sysconfig.get_path('purelib'))
    subprocess.run([python, '-m', 'pip', 'install', '-q', '--no-deps', '--no-index',
                    '--ignore-installed', wheel],
                   check=True, env=_without_pythonpath())
    return python


@pytest.fixture
def installed_environment() -> dict[str, str]:
    """Environment variables under which ``installed_python`` imports what is installed."""
    return {**_without_pythonpath(), **UNCOMPILED}


def _without_pythonpath() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}


@pytest.fixture(scope='session')
def tool_process(tmp_path_factory) -> Callable[..., subprocess.CompletedProcess]:
    """Function (tool, *arguments, cwd) -> what a command of ``tools/`` left behind.

    Every command is a process of its own, forked from one that has imported mmdet.
    """
    server = subprocess.Popen(
        [sys.executable, '-W', 'ignore', CHECKOUT / 'tests' / 'tool_server.py'],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    files = {name: tmp_path_factory.mktemp('tool') / name for name in ('stdout', 'stderr')}

    def run(tool: str, *arguments: object, cwd: Path) -> subprocess.CompletedProcess:
        argv = [str(CHECKOUT / 'tools' / tool), *map(str, arguments)]
        request = dict(argv=argv, cwd=str(cwd), seconds=TOOL_PATIENCE,
                       **{name: str(file) for name, file in files.items()})
        print(json.dumps(request), file=server.stdin, flush=True)
        code = int(server.stdout.readline())
        return subprocess.CompletedProcess(
            argv, code, *(file.read_text(encoding='utf-8') for file in files.values()))

    yield run
    server.stdin.close()
    server.wait()


@dataclass
class SmallDetector:
    """A stock Deformable DETR of 1 + 1 layers, calibrated on one image.

    Attributes:
        model (torch.nn.Module): Prepared; its fake quantizers are on.
        image (torch.Tensor): Normalised, (1, 3, 64, 96).
        float_outputs (list[torch.Tensor]): Of the stock model, last layer.
        hbir (ModuleOp): Its fake-quantized HBIR.
    """
    model: Any
    image: Any
    float_outputs: list
    hbir: Any

    def outputs(self) -> list:
        """What the model gives for the image in its present state, last layer."""
        import torch

        from mmdet_bpu.families.detector_path import example_samples
        samples = example_samples(1, tuple(self.image.shape[-2:]))
        with torch.no_grad():
            return [out[-1] for out in self.model.forward(self.image, samples, mode='tensor')[:2]]


@pytest.fixture(scope='session')
def small_detector() -> Callable[[str], SmallDetector]:
    """Gives the :class:`SmallDetector` of a variant: '', 'refine' or 'refine-twostage'."""
    return functools.cache(build_small_detector)


def build_small_detector(variant: str) -> SmallDetector:
    """Random weights; 2 levels of 24 and 6 tokens."""
    import torch
    from mmdet.registry import MODELS
    from mmengine.hub import get_config
    from mmengine.registry import DefaultScope

    import mmdet_bpu.registration  # noqa: F401
    from mmdet_bpu.families.detector_path import run_tensor_path
    from mmdet_bpu.lowering.export import export_networks
    from mmdet_bpu.quantization import (finish_calibration, prepare, quantized_graphs,
                                        set_quant_state)

    name = f'deformable-detr-{variant}_r50' if variant else 'deformable-detr_r50'
    model = get_config(f'mmdet::deformable_detr/{name}_16xb2-50e_coco.py').model
    model.update(num_queries=10, num_feature_levels=2)
    model.backbone.update(depth=18, base_channels=16, out_indices=(2, 3), init_cfg=None)
    model.neck.update(in_channels=[64, 128], num_outs=2)
    for part, name in ((model.encoder, 'self_attn_cfg'), (model.decoder, 'cross_attn_cfg')):
        part.num_layers = 1
        part.layer_cfg[name].num_levels = 2
        part.layer_cfg.ffn_cfg.feedforward_channels = 64
    model.bbox_head.num_classes = 5
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(model).eval()
    model.level_embed.data.normal_()
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.normal_(module.weight, std=0.05)
        elif isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 2)
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        float_outputs = run_tensor_path(model, image)
    prepare(model, dict(input_shape=(64, 96)))
    small = SmallDetector(model, image, float_outputs, None)
    set_quant_state(model, 'observe')
    small.outputs()
    finish_calibration(model)
    set_quant_state(model, 'quantize')
    small.hbir = export_networks(quantized_graphs(model))
    return small
