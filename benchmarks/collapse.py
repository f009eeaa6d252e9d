"""Why the default template: the demo's mAP after calibration with int8 everywhere, and with it.

    make demo && python benchmarks/collapse.py

Reads the demo's float checkpoint, data and results (work_dirs/demo, data/digits). Calibrates again
with int8 everywhere, under both observers, and with int8 only inside norms and softmax. Prints JSON.
"""
import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from machine_facts import machine

ROOT = Path(__file__).resolve().parent.parent
# The units sample by int16 grids alone.
INT8 = [dict(site='*_attn/sub*', dtype='int16'), dict(site='*', dtype='int8')]
VARIANTS = {
    'int8 everywhere, min-max observer': dict(
        qconfig=INT8, calibration=dict(observer='minmax')),
    'int8 everywhere': dict(qconfig=INT8),
    'int8 inside norms and softmax, the rest by the template': dict(
        qconfig=[dict(site='*norm.*', dtype='int8'), dict(site='*softmax.*', dtype='int8')]),
}


def options(data: Path) -> list:
    """Overrides that point a demo config at the data."""
    val = data / 'val_lmdb'
    return ['--cfg-options', f'train_dataloader.dataset.lmdb={data / "train_lmdb"}',
            f'val_dataloader.dataset.lmdb={val}', f'test_dataloader.dataset.lmdb={val}',
            f'val_evaluator.lmdb={val}', f'test_evaluator.lmdb={val}']


def run(tool: str, *arguments: object) -> None:
    """One command; its output is shown if it fails."""
    command = [sys.executable, str(ROOT / 'tools' / tool), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f'{" ".join(command)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}')


def calibrated_map(bpu: dict, checkpoint: Path, data: Path, folder: Path) -> dict:
    """mAP after calibration with the settings ``bpu`` over the demo's."""
    config = folder / 'variant_calibration.py'
    base = ROOT / 'configs' / 'demo' / 'digits_calibration.py'
    config.write_text(f'_base_ = {str(base)!r}\nbpu = {bpu!r}\n')
    work = folder / 'work'
    run('train.py', config, '--work-dir', work, *options(data), f'load_from={checkpoint}')
    trained = (work / 'last_checkpoint').read_text().strip()
    run('test.py', config, trained, '--stage', 'calibration', '--work-dir', work / 'test',
        '--out', folder / 'metrics.json', *options(data))
    metrics = json.loads((folder / 'metrics.json').read_text())
    return dict(mAP=metrics['coco/bbox_mAP'], mAP50=metrics['coco/bbox_mAP_50'], bpu=bpu)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--demo', type=Path, default=Path('work_dirs/demo'))
    parser.add_argument('--data', type=Path, default=Path('data/digits'))
    args = parser.parse_args()
    summary_file = args.demo / 'summary.json'
    if not summary_file.is_file():
        sys.exit(f'{summary_file} not found: run make demo first')
    summary = json.loads(summary_file.read_text())
    result = dict(machine=machine(), float=summary['float'])
    for name, bpu in VARIANTS.items():
        with tempfile.TemporaryDirectory() as folder:
            result[name] = calibrated_map(bpu, (args.demo / 'float' / 'final.pth').resolve(),
                                          args.data.resolve(), Path(folder))
    result['default template'] = summary['calibration']
    result['default template, after QAT'] = summary['qat']
    print(json.dumps(result, indent=1))


if __name__ == '__main__':
    main()
