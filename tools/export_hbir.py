"""Export a calibrated or trained detector to HBIR and to its integer form.

    tools/export_hbir.py configs/qat.py work_dirs/qat/epoch_6.pth --out deploy

Writes model.hbir.mlir (fake-quantized, for the vendor's compiler), model.int.mlir (integers, for
this package) and model.quant.json (every tensor with its dtype, scale and the rule that chose it).
Option --format puts files of other formats in the place of the integer form.
"""
import argparse

from mmdet_bpu.command_line import (add_checkpoint, add_config, add_config_options, add_out_folder,
                                    command)
from mmdet_bpu.errors import exit_on_error
from mmdet_bpu.steps import Steps


def parse_args() -> argparse.Namespace:
    from mmdet_bpu.lowering.artifact_formats import exported_formats
    parser = command(__doc__)
    add_config(parser)
    add_checkpoint(parser)
    add_out_folder(parser)
    parser.add_argument(
        '--format', dest='formats', nargs='+', choices=exported_formats(), default=['int'],
        help='artefacts to write, by the stage that evaluates them (default: int)')
    add_config_options(parser)
    return parser.parse_args()


@exit_on_error('cfg_options', out_dir='--out', formats='--format')
def main() -> None:
    args = parse_args()
    from mmdet_bpu import apis
    cfg = apis.load_config(args.config, 'int', args.cfg_options)
    with Steps(apis.EXPORT_STEPS) as step:
        files = apis.export(cfg, args.checkpoint, args.out, step, args.formats)
    for file in files:
        print(file)


if __name__ == '__main__':
    main()
