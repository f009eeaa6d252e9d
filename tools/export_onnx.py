"""Export a calibrated or trained detector as a standard ONNX model: QDQ, opset 21, static shapes.

    tools/export_onnx.py configs/qat.py work_dirs/qat/epoch_6.pth --out model.onnx
    tools/export_onnx.py configs/qat.py work_dirs/qat/epoch_6.pth --out float.onnx --float

Needs the extra onnx. Where one file cannot hold all tensors (2 GB), they lie in model.onnx.data
beside it. docs/onnx.md says what is in it and how it compares with the integers.
"""
import argparse

from mmdet_bpu.command_line import add_checkpoint, add_config, add_config_options, command
from mmdet_bpu.errors import exit_on_error


def parse_args() -> argparse.Namespace:
    parser = command(__doc__)
    add_config(parser)
    add_checkpoint(parser)
    parser.add_argument('--out', required=True, metavar='FILE', help='file to write, NAME.onnx')
    parser.add_argument('--float', dest='as_float', action='store_true',
                        help='the same graph without quantizers')
    add_config_options(parser)
    return parser.parse_args()


@exit_on_error('cfg_options', out_file='--out')
def main() -> None:
    args = parse_args()
    from mmdet_bpu import apis
    cfg = apis.load_config(args.config, 'int', args.cfg_options)
    for file in apis.export_onnx(cfg, args.checkpoint, args.out, args.as_float):
        print(file)


if __name__ == '__main__':
    main()
