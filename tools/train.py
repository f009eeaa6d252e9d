"""Train a detector, calibrate it, or train it quantization-aware.

    tools/train.py configs/qat.py
    tools/train.py mmdet::deformable_detr/deformable-detr-refine_r50_16xb2-50e_coco.py --stage qat
"""
import argparse
import os

from mmdet_bpu.command_line import add_config, add_config_options, add_launcher, command
from mmdet_bpu.errors import exit_on_error


def parse_args() -> argparse.Namespace:
    from mmdet_bpu.engine.stage_names import TRAINING_STAGES
    parser = command(__doc__)
    add_config(parser)
    parser.add_argument(
        '--stage', choices=TRAINING_STAGES,
        help="put this stage over the config (default: the config's)")
    parser.add_argument(
        '--load-from', metavar='FILE',
        help='checkpoint to start from (default: the newest one of the stage before)')
    parser.add_argument(
        '--resume', nargs='?', const='auto', metavar='FILE',
        help='go on with an interrupted run from the newest checkpoint in its folder that opens, and '
        'begin if there is none; or from FILE')
    parser.add_argument(
        '--from-statistics', metavar='FILE',
        help="calibrate from what this calibration's checkpoint says that it saw: another observer, "
        'other rules or dtypes in seconds, without an image')
    parser.add_argument('--work-dir', help='folder of logs and checkpoints '
                        '(default: work_dirs/CONFIG_STAGE)')
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision')
    parser.add_argument(
        '--auto-scale-lr', action='store_true', help='scale the learning rate by the batch size')
    add_config_options(parser, 'train_cfg.max_epochs=2 bpu.march=nash-m')
    add_launcher(parser)
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


@exit_on_error('stage', 'load_from', 'resume', 'from_statistics', 'work_dir', 'amp', 'auto_scale_lr',
               'cfg_options', 'launcher')
def main() -> None:
    args = parse_args()
    from mmdet_bpu import apis
    cfg = apis.load_config(args.config, args.stage, args.cfg_options)
    apis.train(cfg, args.work_dir, args.load_from, args.resume, args.amp, args.auto_scale_lr,
               args.launcher, args.from_statistics)


if __name__ == '__main__':
    main()
