"""Evaluate a checkpoint, or an integer artefact, by the config's test data and metrics.

    tools/test.py configs/qat.py work_dirs/qat/epoch_6.pth --stage qat
    tools/test.py configs/qat.py work_dirs/qat/epoch_6.pth --stage int
    tools/test.py configs/qat.py model.hbm --stage hbm

Stage int takes a calibration or QAT checkpoint, which is converted on the fly, or a model.int.mlir;
stage hbm takes a model.hbm.
"""
import argparse
import json
import os
from pathlib import Path

from mmengine.config import DictAction

from mmdet_bpu.engine.settings import EXECUTABLE_STAGES, STAGES
from mmdet_bpu.engine.stages import default_work_dir, load_config
from mmdet_bpu.errors import BpuError, exit_on_error


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'config', help='config file, or mmdet::FOLDER/NAME.py of an installed package')
    parser.add_argument(
        'model', metavar='CHECKPOINT_OR_ARTIFACT', help='a .pth, .int.mlir or .hbm file')
    parser.add_argument(
        '--stage', choices=STAGES, help="what to evaluate (default: the config's stage)")
    parser.add_argument(
        '--deploy-preprocessing', action='store_true',
        help='evaluate stage float on images resized to bpu.input_shape without keeping their '
        'ratio, as every later stage is')
    parser.add_argument('--work-dir', help='folder of logs (default: work_dirs/CONFIG_STAGE)')
    parser.add_argument('--out', metavar='FILE', help='write the metrics there as JSON')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
        help='override settings of the config')
    parser.add_argument(
        '--launcher', choices=('none', 'pytorch', 'slurm', 'mpi'), default='none',
        help='job launcher')
    # torch.distributed.launch passes it; torchrun sets the environment variable.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


@exit_on_error
def main() -> None:
    args = parse_args()
    cfg = load_config(args.config, args.stage, args.cfg_options)
    if cfg.get('bpu') is None:
        raise BpuError(f'config {args.config} has no stage of its own; pass --stage')
    stage = cfg.bpu.stage
    cfg.launcher = args.launcher
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or default_work_dir(args.config, cfg)
    cfg.resume = False
    if args.deploy_preprocessing:
        cfg.bpu.deploy_preprocessing = True

    from mmdet_bpu.engine.evaluation import evaluate
    if stage in EXECUTABLE_STAGES:
        from mmdet_bpu import apis
        cfg.load_from = None
        metrics = evaluate(cfg, apis.load_executable(cfg, args.model, stage))
    else:
        cfg.load_from = args.model
        metrics = evaluate(cfg)
    if args.out:
        Path(args.out).parent.mkdir(parents=True, exist_ok=True)
        Path(args.out).write_text(json.dumps(metrics, indent=2) + '\n', encoding='utf-8')


if __name__ == '__main__':
    main()
