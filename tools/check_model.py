"""Check whether a detector can be deployed, before it is trained.

    tools/check_model.py configs/qat.py --march nash-e
    tools/check_model.py configs/qat.py --march nash-p --cores 4
    tools/check_model.py configs/qat.py --sites

Builds it with random weights, observes one random image, makes the integer model, and compares
every op with the limits of the march. Prints each tensor with its dtype and the rule that chose it,
by the names that bpu.qconfig rules match, the recipe of each stage (loop, optimizer, schedule,
hooks that change), what was found with unit and reason, and what the cost model says: latency,
DDR traffic, the three dearest layers and what would make them cheaper. Exit code 0: it can be
deployed, perhaps with warnings; 2: it cannot.
"""
import argparse
from collections import Counter

from mmdet_bpu.command_line import add_config, add_config_options, add_cores, add_march, command
from mmdet_bpu.compiler.march import get_march
from mmdet_bpu.errors import exit_on_error
from mmdet_bpu.output_folder import require_file, write_json
from mmdet_bpu.steps import Steps


def parse_args() -> argparse.Namespace:
    parser = command(__doc__)
    add_config(parser)
    add_march(parser)
    add_cores(parser)
    parser.add_argument(
        '--checkpoint', metavar='FILE', help='use these weights, and the scales if it has them')
    parser.add_argument(
        '--sites', action='store_true',
        help='only list the tensors by the template, without the rules of bpu.qconfig')
    parser.add_argument('--out', metavar='FILE', help='write everything there as JSON')
    add_config_options(parser)
    return parser.parse_args()


def print_sites(rows: list) -> None:
    width = max(len(row['site']) for row in rows)
    print(f'{"site":<{width}}  {"op":<12} {"shape":<20} {"dtype":<6} rule')
    for row in rows:
        shape = ' x '.join(map(str, row['shape']))
        print(f'{row["site"]:<{width}}  {row["op"]:<12} {shape:<20} {row["dtype"]:<6} '
              f'{row["rule"]}')
    dtypes = Counter(row['dtype'] for row in rows)
    print(f'{len(rows)} tensors: ' + ', '.join(f'{n} {dtype}' for dtype, n in dtypes.items()))


def print_costs(check, cores: int) -> None:
    """Latency and traffic, and where they come from."""
    estimate = check.estimate
    print(f'\nestimated on {check.march}, one core: {estimate.latency_ms:.3f} ms, '
          f'{2 * estimate.macs / 1e9:.2f} GOPs, DDR {estimate.ddr_megabytes:.1f} MB '
          f'(read {estimate.loaded_bytes / 1e6:.1f}, written {estimate.stored_bytes / 1e6:.1f})')
    print(f'{cores} core{"s" * (cores > 1)}: {estimate.throughput(cores):.1f} images/s')
    print(estimate.note)
    for layer in check.dearest:
        print(f'{layer.time_us:10.1f} us {layer.share:6.1%}  {layer.op} at {layer.site}, '
              f'{layer.output}, bound by {layer.bound_by}')
        for way in layer.ways:
            print(f'{"":21}cheaper: {way}')


@exit_on_error('march', 'cores', 'cfg_options', 'out')
def main() -> None:
    args = parse_args()
    if args.out:
        require_file(args.out)
    from mmdet_bpu import apis
    cfg = apis.load_config(args.config, 'int', args.cfg_options)
    if args.sites:
        rows = apis.sites_of(cfg)
        print_sites(rows)
        if args.out:
            write_json(args.out, dict(sites=rows))
        return
    get_march(args.march or apis.settings_of(cfg)['march']).check_cores(args.cores)
    with Steps(apis.CHECK_STEPS) as step:
        check = apis.check_model(cfg, args.march, args.checkpoint, step)
    recipes = apis.recipes_of(args.config, args.cfg_options)
    print_sites(check.sites)
    print()
    for recipe in recipes:
        print('\n'.join(apis.recipe_lines(recipe)))
    print()
    for finding in check.findings:
        print(f'{finding} (unit: {finding.unit})')
    counts = check.counts
    print(f'{check.instructions} integer instructions on {check.march}: '
          + ', '.join(f'{count} {level}s' for level, count in counts.items()))
    print_costs(check, args.cores)
    if args.out:
        write_json(args.out, dict(check.as_dict(), recipes=recipes))
    apis.refuse_errors(check.findings, check.march)
    print('it can be deployed' + (', with the warnings above' if counts['warning'] else ''))


if __name__ == '__main__':
    main()
