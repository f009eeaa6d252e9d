"""Train a detector, calibrate it, or train it quantization-aware.

    tools/train.py configs/qat.py
    tools/train.py mmdet::deformable_detr/deformable-detr-refine_r50_16xb2-50e_coco.py --stage qat
"""
import argparse
import os

from mmengine.config import DictAction

from mmdet_bpu.engine.settings import TRAINING_STAGES
from mmdet_bpu.engine.stages import default_work_dir, load_config
from mmdet_bpu.errors import BpuError, exit_on_error


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'config', help='config file, or mmdet::FOLDER/NAME.py of an installed package')
    parser.add_argument(
        '--stage', choices=TRAINING_STAGES,
        help="put this stage over the config (default: the config's)")
    parser.add_argument(
        '--load-from', metavar='FILE',
        help='checkpoint to start from (default: the newest one of the stage before)')
    parser.add_argument(
        '--resume', nargs='?', const='auto', metavar='FILE',
        help='go on with an interrupted run: from its newest checkpoint, or from FILE')
    parser.add_argument('--work-dir', help='folder of logs and checkpoints '
                        '(default: work_dirs/CONFIG_STAGE)')
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision')
    parser.add_argument(
        '--auto-scale-lr', action='store_true', help='scale the learning rate by the batch size')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
        help='override settings of the config, e.g. train_cfg.max_epochs=2 bpu.march=nash-m')
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
    cfg.launcher = args.launcher
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or default_work_dir(args.config, cfg)
    if args.load_from:
        cfg.load_from = args.load_from
    if args.resume:
        if args.load_from:
            raise BpuError('--resume and --load-from exclude each other: a resumed run goes on '
                           'with its own weights')
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
    if args.amp:
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.loss_scale = 'dynamic'
    if args.auto_scale_lr:
        if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
            raise BpuError('--auto-scale-lr: expected auto_scale_lr.base_batch_size in the config, '
                           'found none')
        cfg.auto_scale_lr.enable = True

    from mmdet_bpu.engine.runner import BPURunner
    BPURunner.from_cfg(cfg).train()


if __name__ == '__main__':
    main()
