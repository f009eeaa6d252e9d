"""The command ``tools/analyze_quant.py search``."""
import argparse

from mmdet_bpu.command_line import (add_config, add_config_options, add_march, add_out_folder,
                                    positive)
from mmdet_bpu.errors import BpuError
from mmdet_bpu.output_folder import require_folder

DESCRIPTION = '''\
Find int8 and int16 for every tensor: the cheapest that keeps an mAP, or the best within a latency.

    tools/analyze_quant.py search CONFIG CALIBRATED.pth --target-map 0.56 --out DIR
    tools/analyze_quant.py search CONFIG CALIBRATED.pth --max-latency 0.53 --out DIR

Latency is the cost model's, mAP is measured on the validation images, scales come from the
statistics of the calibration. Without a bound, the template's mAP is kept (within 0.002). Writes
search.json, .csv and .html, and searched_qconfig.py, whose rules a config inherits. A search that was
cut goes on from what it has measured. Exit code 2 where the bound cannot be kept: the best setting that
was found is written all the same.
'''


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    add_config(parser)
    parser.add_argument('checkpoint', help='checkpoint of stage calibration')
    add_out_folder(parser)
    parser.add_argument('--target-map', type=share, metavar='MAP',
                        help='keep at least this mAP, in [0, 1]')
    parser.add_argument('--max-latency', type=milliseconds, metavar='MS',
                        help='take at most this latency, ms, by the cost model')
    add_march(parser)
    parser.add_argument('--evaluations', type=positive, default=24, metavar='N',
                        help='settings whose mAP is measured, at most (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0,
                        help='of the refinement (default: %(default)s)')
    parser.add_argument('--images', type=positive, default=192, metavar='N',
                        help='as for sensitivity, which is measured first (default: %(default)s)')
    parser.add_argument('--first-order-images', type=positive, default=256, metavar='N',
                        help='likewise (default: %(default)s)')
    parser.add_argument('--work-dir', metavar='DIR',
                        help='where what was measured is kept (default: the folder of --out)')
    add_config_options(parser)


def share(text: str) -> float:
    """Check an mAP."""
    value = _number(text)
    if value is None or not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f'expected a number from 0 to 1, found {text!r}')
    return value


def milliseconds(text: str) -> float:
    """Check a latency."""
    value = _number(text)
    if value is None or not 0 < value < float('inf'):
        raise argparse.ArgumentTypeError(f'expected a positive number of ms, found {text!r}')
    return value


def _number(text: str):
    try:
        return float(text)
    except ValueError:
        return None


def run(args: argparse.Namespace) -> None:
    """Search, write, and say how it compares with the template."""
    require_folder(args.out)
    from mmdet_bpu import apis
    cfg = apis.load_config(args.config, 'calibration', args.cfg_options)
    bound = apis.Bound(args.target_map, args.max_latency)
    result = apis.search(cfg, args.checkpoint, args.work_dir or args.out, bound, args.march,
                         args.evaluations, args.seed, args.images, args.first_order_images)
    apis.write_search(result, args.out, args.checkpoint)
    for point in result.points:
        mark = '*' if point is result.chosen else '+' if point in result.front else ' '
        print(f'{mark} {point.latency_ms:.4f} ms  mAP {point.mean_ap:.4f}  {point.wide:4d} int16  '
              f'{point.name}')
    print(f'* chosen, + on the front; {result.verdict()}')
    print(f'written to {args.out}')
    if not result.met:
        asked = [f'mAP of at least {args.target_map}'] if args.target_map is not None else []
        asked += [f'at most {args.max_latency} ms'] if args.max_latency is not None else []
        advice = 'Ask for a lower mAP or a longer latency, or allow more --evaluations'
        if args.max_latency is not None and args.max_latency < result.cheapest_ms:
            advice = f'No dtypes take less than {result.cheapest_ms:.4f} ms: ask for a longer latency'
        raise BpuError(f'no setting was found with {" and ".join(asked)}; the best one, mAP '
                       f'{result.chosen.mean_ap:.4f} at {result.chosen.latency_ms:.4f} ms, is in '
                       f'{args.out}. {advice}')
