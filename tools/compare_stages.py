"""Compare QAT, integer and compiled model of one checkpoint, tensor by tensor.

    tools/compare_stages.py CONFIG CHECKPOINT --int model.int.mlir --hbm model.hbm --out FILE

The integer module and the .hbm run on every test image and must give equal integers. QAT and
integers are compared operation by operation, between neighbouring quantizers, on the same inputs;
differences are in LSB of the result.
"""
import argparse
import json

from mmdet_bpu.command_line import add_config_options, add_kernels, command
from mmdet_bpu.errors import exit_on_error
from mmdet_bpu.output_folder import require_file, write_json


def parse_args() -> argparse.Namespace:
    parser = command(__doc__)
    parser.add_argument('config', help='config of a calibration or QAT stage')
    parser.add_argument('checkpoint', help='calibration or QAT checkpoint')
    parser.add_argument('--int', dest='integer', required=True, metavar='FILE',
                        help='model.int.mlir exported from the checkpoint')
    parser.add_argument('--hbm', required=True, metavar='FILE', help='model.hbm compiled from it')
    parser.add_argument('--images', type=int, metavar='N',
                        help='compare on the first N test images only (default: all)')
    parser.add_argument('--qat-images', type=int, default=2, metavar='N',
                        help='images for QAT against integers (default: %(default)s)')
    parser.add_argument('--out', metavar='FILE', help='write the comparison there as JSON')
    add_kernels(parser)
    add_config_options(parser)
    return parser.parse_args()


@exit_on_error('cfg_options', 'out')
def main() -> None:
    args = parse_args()
    if args.out:
        require_file(args.out)
    from mmdet_bpu import apis
    cfg = apis.load_config(args.config, None, args.cfg_options)
    result = apis.compare_stages(cfg, args.checkpoint, args.integer, args.hbm, args.images,
                                 args.qat_images, args.kernels)
    if args.out:
        write_json(args.out, result)
    print(f'\nint equals hbm on {result["images"]} images: {result["int_equals_hbm"]}')
    print(f'QAT against int, op by op: {json.dumps(result["qat_vs_int"])}')


if __name__ == '__main__':
    main()
