"""Evaluate a checkpoint, or an integer artefact, by the config's test data and metrics.

    tools/test.py configs/qat.py work_dirs/qat/epoch_6.pth --stage qat
    tools/test.py configs/qat.py work_dirs/qat/epoch_6.pth --stage int
    tools/test.py configs/qat.py model.hbm --stage hbm

Stage int takes a calibration or QAT checkpoint, which is converted on the fly, or a model.int.mlir;
stage hbm takes a model.hbm. Stage hbdk4 takes a checkpoint, which the vendor's package, where it is
installed, converts and computes.
"""
import argparse
import os

from mmdet_bpu.backends.choice import require_vendor
from mmdet_bpu.command_line import (add_config, add_config_options, add_kernels, add_launcher,
                                    command)
from mmdet_bpu.errors import exit_on_error
from mmdet_bpu.output_folder import require_file, write_json


def parse_args() -> argparse.Namespace:
    from mmdet_bpu.engine.stage_names import STAGES
    parser = command(__doc__)
    add_config(parser)
    parser.add_argument(
        'model', metavar='CHECKPOINT_OR_ARTIFACT', help='a .pth, .int.mlir or .hbm file')
    parser.add_argument(
        '--stage', choices=STAGES, help="what to evaluate (default: the config's stage)")
    parser.add_argument(
        '--deploy-preprocessing', action='store_true',
        help='evaluate stage float on images as every later stage gets them: at bpu.input_shape, '
        'resized as bpu.resize says')
    parser.add_argument('--work-dir', help='folder of logs (default: work_dirs/CONFIG_STAGE)')
    parser.add_argument('--out', metavar='FILE', help='write the metrics there as JSON')
    add_kernels(parser)
    add_config_options(parser)
    add_launcher(parser)
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


@exit_on_error('stage', 'work_dir', 'cfg_options', 'launcher', 'out')
def main() -> None:
    args = parse_args()
    if args.out:
        require_file(args.out)
    if args.stage == 'hbdk4':
        require_vendor("parameter stage='hbdk4'")
    from mmdet_bpu import apis
    cfg = apis.load_config(args.config, args.stage, args.cfg_options)
    metrics = apis.evaluate(cfg, args.model, args.work_dir, args.deploy_preprocessing,
                            args.launcher, args.kernels)
    if args.out:
        write_json(args.out, metrics)


if __name__ == '__main__':
    main()
