"""Set what two configs cost on a march side by side, before either is trained.

    tools/compare_costs.py configs/qat.py mmdet::detr/detr_r50_8xb2-150e_coco.py --march nash-e
    tools/compare_costs.py configs/qat.py my_smaller.py --march nash-p --cores 4 --out costs.json

Both detectors are built with random weights, made integer programs and estimated by the cost model.
Prints latency, throughput, operations, DDR traffic, memory and the time of each operation, with the
change from the first to the second. Exit code 2: one of them cannot be built or lowered.
"""
import argparse

from mmdet_bpu.command_line import add_config_options, add_cores, add_march, command
from mmdet_bpu.compiler.march import get_march
from mmdet_bpu.errors import exit_on_error
from mmdet_bpu.output_folder import require_file, write_json
from mmdet_bpu.steps import Steps


def parse_args() -> argparse.Namespace:
    parser = command(__doc__)
    for name in ('first', 'second'):
        parser.add_argument(
            name, help='config file, or mmdet::FOLDER/NAME.py of an installed package')
    add_march(parser)
    add_cores(parser)
    parser.add_argument('--out', metavar='FILE', help='write the table there as JSON')
    add_config_options(parser)
    return parser.parse_args()


def print_table(rows: list) -> None:
    print(f'{"":<28}{"unit":<10}{"first":>14}{"second":>14}{"change":>10}')
    for row in rows:
        change = '' if row.change is None else f'{row.change:+.1%}'
        print(f'{row.quantity:<28}{row.unit:<10}{row.first:>14,.3f}{row.second:>14,.3f}'
              f'{change:>10}')


@exit_on_error('march', 'cores', 'cfg_options', 'out')
def main() -> None:
    args = parse_args()
    if args.out:
        require_file(args.out)
    from mmdet_bpu import apis
    configs = [apis.load_config(path, 'int', args.cfg_options)
               for path in (args.first, args.second)]
    march = get_march(args.march or apis.settings_of(configs[0])['march'])
    march.check_cores(args.cores)
    with Steps(apis.COMPARE_STEPS) as step:
        rows = apis.compare_costs(*configs, march.name, args.cores, step)
    print(f'first: {args.first}\nsecond: {args.second}\non {march.name}, estimated')
    print_table(rows)
    if march.note:
        print(march.note)
    if args.out:
        write_json(args.out, dict(first=args.first, second=args.second, march=march.name,
                                  cores=args.cores, rows=[row.as_dict() for row in rows]))


if __name__ == '__main__':
    main()
