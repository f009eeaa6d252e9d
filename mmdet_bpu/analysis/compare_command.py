"""``tools/analyze_quant.py compare``."""
import argparse
from typing import Any, List, Mapping, Optional, Sequence

from mmdet_bpu.backends.choice import require_vendor
from mmdet_bpu.command_line import (add_checkpoint, add_config, add_config_options, add_kernels,
                                    add_out_folder)
from mmdet_bpu.engine.stage_names import VENDOR
from mmdet_bpu.output_folder import require_folder

DESCRIPTION = """Where does a model lose by quantization, tensor by tensor?

Runs the first validation images through the checkpoint without its quantizers and with them, and
through its integers. Per tensor: SQNR, cosine, saturated share, largest error in LSB, each of the
tensor alone (rounded from what its quantizer is given) and accumulated (with everything before it
quantized); per output and per image what became of the detections. Writes compare.html (one page,
worst images drawn), compare.json and compare.csv.
"""
WORST = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the subcommand."""
    add_config(parser)
    add_checkpoint(parser)
    add_out_folder(parser)
    parser.add_argument('--float', dest='float_checkpoint', metavar='FILE',
                        help="float checkpoint to compare with (default: the checkpoint's own "
                        'weights without quantizers)')
    parser.add_argument('--against', metavar='FILE',
                        help='model.int.mlir or model.hbm of this checkpoint, whose outputs are '
                        f"compared with the integers; {VENDOR}: what the vendor's package, where it "
                        'is installed, makes of it')
    parser.add_argument('--images', type=int, default=32, metavar='N',
                        help='compare on the first N validation images (default: %(default)s)')
    parser.add_argument('--int-images', type=int, default=2, metavar='N',
                        help='of them, compare the integers op by op on N (default: %(default)s)')
    parser.add_argument('--score-thr', type=float, default=0.3, metavar='SCORE',
                        help='boxes below this score are no objects (default: %(default)s)')
    add_kernels(parser)
    add_config_options(parser)


def run(args: argparse.Namespace) -> None:
    """Compare, write, and print the worst."""
    require_folder(args.out)
    if args.against == VENDOR:
        require_vendor(f'parameter against={VENDOR!r}')
    from mmdet_bpu import apis
    cfg = apis.load_config(args.config, 'int', args.cfg_options)
    report = apis.compare(cfg, args.checkpoint, args.out, args.float_checkpoint, args.against,
                          args.images, args.int_images, args.score_thr, args.kernels)
    print('\n'.join(summary(report)))
    print(f'written: compare.html, compare.json and compare.csv in {args.out}')


def summary(report: Mapping[str, Any]) -> List[str]:
    """What the terminal shows: the worst tensors, the outputs, the images."""
    worst = sorted((row for row in report['tensors'] if row['sqnr_db'] is not None),
                   key=lambda row: row['sqnr_db'])[:WORST]
    width = max((len(row['site']) for row in worst), default=0)
    lines = [f'{len(report["tensors"])} tensors over {len(report["images"])} images; the '
             f'{len(worst)} worst by their own SQNR:',
             f'{"tensor":<{width}}  dtype   SQNR  channel  arrives  saturated  zeroed  max LSB']
    lines += [f'{row["site"]:<{width}}  {row["dtype"]:<6} {_db(row["sqnr_db"])}  '
              f'{_db(row["channel_sqnr_db"], 7)}  {_db(row["accumulated_sqnr_db"], 7)}  '
              f'{row["saturated"]:9.3%}  {row["zeroed"]:6.1%}  {row["max_lsb"]:7.2f}'
              for row in worst]
    for row in report['findings'][:WORST]:
        if not row['try_first'].startswith('nothing'):
            lines.append(f'{row["site"]}: {row["cause"]}; try {row["try_first"]}')
    lines += [f'float to quantized, {row["output"]}: {_db(row["sqnr_db"], 0)} dB, largest difference '
              f'{row["max_difference"]:.4g}' for row in report['outputs']]
    compared = [row for row in report['tensors'] if row['int_max_lsb'] is not None]
    if compared:
        lines.append(f'integers against quantized, op by op on {report["int_images"]} images: at most '
                     f'{max(row["int_max_lsb"] for row in compared)} LSB')
    if not report['reordered']:
        lines += _differences('integers against quantized, end to end', report['int_outputs'])
    if report['against_outputs'] is not None:
        lines += _differences(f'{report["against"]} against integers', report['against_outputs'])
    images = report['images']
    for title, prefix in (('float to quantized', ''), ('quantized to integers', 'int_')):
        changed = [row for row in images if row[f'{prefix}lost'] + row[f'{prefix}added']]
        lines.append(f'{title}: {len(changed)} of {len(images)} images lost or won a box of score '
                     f'{report["score_thr"]:g} or more')
    most = max(images, key=lambda row: row['score_change'])
    lines.append(f'most changed: {most["image"]}, {most["lost"]} lost, {most["added"]} added, sum of '
                 f'changed scores {most["score_change"]:.2f}')
    return lines


def _db(ratio: Optional[float], width: int = 5) -> str:
    return f'{"exact" if ratio is None else format(ratio, ".1f"):>{width}}'


def _differences(title: str, rows: Sequence[Mapping[str, Any]]) -> List[str]:
    return [f'{title}, {row["output"]}: largest difference {row["max_difference"]:.4g}'
            + ('' if row['max_lsb'] is None else f' ({row["max_lsb"]} LSB)')
            + f', {row["differing_share"]:.2%} of the elements differ' for row in rows]
