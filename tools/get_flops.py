"""Count the multiply-accumulates of a detector, per module and in total.

    tools/get_flops.py configs/qat.py --shape 800 1333
    tools/get_flops.py configs/deformable_detr/deformable-detr_r50_vendor_float.py \\
        --published Deformable_detr_resnet50

GOPs are 2 x MAC of conv2d, linear and matmul, as in published tables. Bilinear sampling is apart;
element-wise work, reductions and norms are not counted. mmengine's counter calls a MAC one FLOP.
"""
import argparse

from mmdet_bpu.command_line import add_config, add_config_options, command
from mmdet_bpu.compiler.published import PUBLISHED_NASH_E, SOURCE
from mmdet_bpu.errors import exit_on_error
from mmdet_bpu.output_folder import require_file, write_json
from mmdet_bpu.steps import Steps

PUBLISHED = {model.name: model for model in PUBLISHED_NASH_E}
DEFAULT_SHAPE = (800, 1333)  # px: what the reference recipe deploys for COCO


def parse_args() -> argparse.Namespace:
    from mmdet_bpu.engine.stage_names import TRAINING_STAGES
    parser = command(__doc__)
    add_config(parser)
    parser.add_argument(
        '--shape', type=int, nargs=2, metavar=('H', 'W'),
        help="height and width in px (default: the config's bpu.input_shape, else 800 1333)")
    parser.add_argument('--stage', choices=TRAINING_STAGES, help='put this stage over the config')
    parser.add_argument('--depth', type=int, default=2, help='parts of a module path (default: 2)')
    parser.add_argument(
        '--published', choices=PUBLISHED, metavar='MODEL',
        help='print a count that the vendor published beside ours: ' + ', '.join(PUBLISHED))
    parser.add_argument('--out', metavar='FILE', help='write the count there as JSON')
    add_config_options(parser)
    return parser.parse_args()


def print_count(count, depth: int) -> None:
    height, width = count.shape
    print(f'input 1 x 3 x {height} x {width}')
    print(f'{"module":<44}{"GMAC":>10}{"share":>9}')
    for path, macs in count.by_module(depth).items():
        print(f'{path or "(detector)":<44}{macs / 1e9:>10.4f}{macs / max(count.macs, 1):>9.1%}')
    print()
    rows = [(kind, macs / 1e9, 'GMAC') for kind, macs in count.by_kind().items()]
    rows += [('total without grid_sample', count.macs / 1e9, 'GMAC'),
             ('total without grid_sample', count.flops / 1e9, 'GOPs (2 x MAC)'),
             ('float model, auxiliary heads too', count.whole_macs / 1e9, 'GMAC'),
             ("the same with grid_sample, as mmengine's", count.comparable_macs / 1e9, 'GMAC'),
             ('learned parameters', count.parameters / 1e6, 'million')]
    for name, value, unit in rows:
        print(f'{name:<44}{value:>10.4f} {unit}')


def print_published(published, count) -> None:
    ours = count.flops / 1e9
    same = tuple(published.input_shape[2:]) == tuple(count.shape)
    remark = f'{ours / published.gops - 1:+.1%}' if same else \
        f'not comparable: at {count.shape[0]} x {count.shape[1]}'
    print(f'\npublished {published.name}, {" x ".join(map(str, published.input_shape))}: '
          f'{published.gops} GOPs; ours: {ours:.2f} GOPs ({remark})\n{SOURCE}')


@exit_on_error('shape', 'stage', 'cfg_options', 'out')
def main() -> None:
    args = parse_args()
    if args.out:
        require_file(args.out)
    from mmdet_bpu import apis
    cfg = apis.load_config(args.config, args.stage, args.cfg_options)
    published = PUBLISHED.get(args.published)
    shape = args.shape or (published and published.input_shape[2:]) \
        or (cfg.get('bpu') or {}).get('input_shape') or DEFAULT_SHAPE
    with Steps(1) as step:
        step('build, capture, count')
        count = apis.count_flops(cfg, tuple(shape))
    print_count(count, args.depth)
    if published:
        print_published(published, count)
    if args.out:
        write_json(args.out, count.as_dict())


if __name__ == '__main__':
    main()
