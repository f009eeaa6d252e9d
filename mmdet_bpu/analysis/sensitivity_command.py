"""The command ``tools/analyze_quant.py sensitivity``."""
import argparse

from mmdet_bpu.command_line import add_config, add_config_options, add_out_folder, positive
from mmdet_bpu.output_folder import require_folder

DESCRIPTION = '''\
What each tensor alone costs: which ones int8 hurts, and what int16 gives back.

    tools/analyze_quant.py sensitivity CONFIG CALIBRATED.pth --out DIR

One tensor after the other is quantized while all else stays in float, in int8 and in int16, on
validation images: what the loss gains and the outputs lose. Writes sensitivity.json, .csv and
.html, the most sensitive tensor first. Without labels, what the float model detects takes their place.
'''
SHOWN = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    add_config(parser)
    parser.add_argument('checkpoint', help='checkpoint of stage calibration')
    add_out_folder(parser)
    parser.add_argument('--images', type=positive, default=192, metavar='N',
                        help='validation images on which each tensor is measured, at most '
                        '(default: %(default)s)')
    parser.add_argument('--first-order-images', type=positive, default=256, metavar='N',
                        help='images on which all are estimated at once, these included '
                        '(default: %(default)s)')
    parser.add_argument('--tensors', default='*', metavar='GLOB',
                        help="only tensors whose name matches, such as 'encoder.*' (default: all)")
    parser.add_argument('--work-dir', metavar='DIR',
                        help='where what was measured is kept, so that an analysis that was cut goes '
                        'on (default: the folder of --out)')
    add_config_options(parser)


def run(args: argparse.Namespace) -> None:
    """Measure, write, and print the tensors that matter."""
    require_folder(args.out)
    from mmdet_bpu import apis
    cfg = apis.load_config(args.config, 'calibration', args.cfg_options)
    result = apis.sensitivity(cfg, args.checkpoint, args.images, args.first_order_images,
                              args.tensors, args.work_dir or args.out)
    apis.write_sensitivity(result, args.out, args.checkpoint)
    print_ranking(result)
    print(f'written to {args.out}')


def print_ranking(result) -> None:
    """The first tensors of the ranking."""
    first = result.tensors[:SHOWN]
    width = max(len(tensor.tensor) for tensor in first)
    print(f'loss of the float model on {result.images} images: {result.loss:.4f} '
          f'(labels: {result.labels})')
    print(f'{"tensor":<{width}}  {"dtype":<6} {"int8":>9} {"int16":>9} {"configured":>10} '
          f'{"SQNR dB":>8}')
    for tensor in first:
        int16 = tensor.costs.get('int16')
        decibels = tensor.costs['int8'].sqnr_db
        print(f'{tensor.tensor:<{width}}  {tensor.dtype:<6} {tensor.score:>+9.4f} '
              f'{"" if int16 is None else format(int16.loss_change, "+.4f"):>9} '
              f'{tensor.as_configured:>+10.4f} '
              f'{"" if decibels is None else format(decibels, ".1f"):>8}')
