"""What a camera's input costs: mAP of the demo's integers as ``rgb`` and through ``nv12``.

    tools/demo.py                                     makes the float checkpoint and the data
    python benchmarks/camera_input.py work_dirs/demo/float/final.pth --data data/digits

Takes a float checkpoint of ``configs/demo`` twice through calibration, QAT, export and compile with
the commands that a user runs, once for each ``bpu.input_format``, and evaluates the checkpoint of QAT,
the integer model and the ``.hbm`` on the validation images; then compares integers and ``.hbm`` bit
for bit. Prints JSON: the mAP of every stage and its difference from ``rgb``.

``--images N`` trains and evaluates on the first N images alone, which says whether it runs and
nothing about accuracy.
"""
import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine_facts import machine

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / 'configs' / 'demo'
UNTESTED = 'train_cfg.val_begin=1000'
REFERENCE = 'rgb'
BOUND = 0.003
"""Of the difference in mAP that the project asks for."""


def run(log: Path, tool: str, *arguments: object) -> None:
    """Run a command of the project; its last lines are shown if it fails."""
    command = [sys.executable, str(ROOT / 'tools' / tool), *map(str, arguments)]
    with open(log, 'a', encoding='utf-8') as file:
        code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, cwd=ROOT).returncode
    if code:
        tail = '\n'.join(log.read_text(encoding='utf-8').splitlines()[-15:])
        sys.exit(f'{" ".join(command)} ended with exit code {code}:\n{tail}')


def options(data: Path, images: int, *more: str) -> list:
    """Overrides that point a command at the data."""
    train, val = data / 'train_lmdb', data / 'val_lmdb'
    fewer = [f'{loader}_dataloader.dataset.indices={images}'
             for loader in ('train', 'val', 'test')] if images else []
    return ['--cfg-options', f'train_dataloader.dataset.lmdb={train}',
            f'val_dataloader.dataset.lmdb={val}', f'test_dataloader.dataset.lmdb={val}',
            f'val_evaluator.lmdb={val}', f'test_evaluator.lmdb={val}', *fewer, *more]


def trained(folder: Path, stage: str, source: Path, given: list) -> Path:
    """Train a stage; its last checkpoint."""
    work_dir = folder / stage
    run(folder / 'log.txt', 'train.py', CONFIGS / f'digits_{stage}.py', '--work-dir', work_dir,
        *given, UNTESTED, f'load_from={source}')
    return Path((work_dir / 'last_checkpoint').read_text(encoding='utf-8').strip())


def evaluated(folder: Path, stage: str, model: Path, given: list) -> float:
    """mAP of a model on the validation images."""
    out = folder / f'{stage}.json'
    run(folder / 'log.txt', 'test.py', CONFIGS / 'digits_qat.py', model, '--stage', stage,
        '--work-dir', folder / 'test', '--out', out, *given)
    return json.loads(out.read_text(encoding='utf-8'))['coco/bbox_mAP']


def measured(folder: Path, checkpoint: Path, data: Path, images: int, stated: str) -> dict:
    """mAP of a format's stages, and whether integers and ``.hbm`` are equal."""
    folder.mkdir(parents=True)
    given = options(data, images, f'bpu.input_format={stated}')
    began = time.time()
    calibrated = trained(folder, 'calibration', checkpoint, given)
    final = trained(folder, 'qat', calibrated, given)
    artifacts = folder / 'deploy'
    run(folder / 'log.txt', 'deploy_bpu.py', CONFIGS / 'digits_qat.py', final, '--out', artifacts,
        '--backend', 'sim', *given)
    result = {stage: evaluated(folder, stage, model, given) for stage, model in (
        ('qat', final), ('int', artifacts / 'model.int.mlir'), ('hbm', artifacts / 'model.hbm'))}
    equality = folder / 'equality.json'
    run(folder / 'log.txt', 'compare_stages.py', CONFIGS / 'digits_qat.py', final,
        '--int', artifacts / 'model.int.mlir', '--hbm', artifacts / 'model.hbm', '--out', equality,
        *given)
    compared = json.loads(equality.read_text(encoding='utf-8'))
    return dict(mAP=result, int_equals_hbm=compared['int_equals_hbm'], images=compared['images'],
                seconds=round(time.time() - began, 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('checkpoint', type=Path, help='float checkpoint of configs/demo')
    parser.add_argument('--data', type=Path, default=Path('data/digits'),
                        help='folder with train_lmdb and val_lmdb (default: data/digits)')
    parser.add_argument('--formats', nargs='+', default=['nv12'],
                        help='values of bpu.input_format held against rgb (default: nv12)')
    parser.add_argument('--images', type=int, default=0, help='first images alone (default: all)')
    parser.add_argument('--work-dir', type=Path, help='new folder that is kept (default: none is)')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (args.work_dir or Path(temporary) / 'runs').resolve()
        rows = {stated: measured(folder / stated, args.checkpoint.resolve(), args.data.resolve(),
                                 args.images, stated) for stated in (REFERENCE, *args.formats)}
    base = rows[REFERENCE]['mAP']
    for row in rows.values():
        row['difference'] = {stage: round(value - base[stage], 4)
                             for stage, value in row['mAP'].items()}
        row['within_bound'] = all(abs(value) <= BOUND for value in row['difference'].values())
    print(json.dumps(dict(machine=machine(), bound=BOUND, formats=rows), indent=1))


if __name__ == '__main__':
    main()
