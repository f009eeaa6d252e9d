"""Check whether a detector can be deployed, before it is trained.

    tools/check_model.py configs/qat.py --march nash-e
    tools/check_model.py configs/qat.py --sites

Builds it with random weights, observes one random image, makes the integer model, and compares
every op with the limits of the march. Prints each tensor with its dtype and the rule that chose it,
by the names that bpu.qconfig rules match, and what was found with unit and reason. Exit code 0: it
can be deployed, perhaps with warnings; 2: it cannot.
"""
import argparse
import json
from collections import Counter
from pathlib import Path

from mmengine.config import DictAction

from mmdet_bpu.compiler.legality import refuse_errors, summarize
from mmdet_bpu.compiler.march import MARCHES
from mmdet_bpu.engine.stages import load_config
from mmdet_bpu.errors import exit_on_error
from mmdet_bpu.steps import Steps


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'config', help='config file, or mmdet::FOLDER/NAME.py of an installed package')
    parser.add_argument(
        '--march', help=f"{', '.join(MARCHES)} (default: the config's bpu.march)")
    parser.add_argument(
        '--checkpoint', metavar='FILE', help='use these weights, and the scales if it has them')
    parser.add_argument(
        '--sites', action='store_true',
        help='only list the tensors by the template, without the rules of bpu.qconfig')
    parser.add_argument('--out', metavar='FILE', help='write everything there as JSON')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
        help='override settings of the config')
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


def write(path: str, content: dict) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(content, indent=1) + '\n', encoding='utf-8')


@exit_on_error
def main() -> None:
    args = parse_args()
    cfg = load_config(args.config, 'int', args.cfg_options)

    from mmdet_bpu import apis
    if args.sites:
        rows = apis.sites_of(cfg)
        print_sites(rows)
        if args.out:
            write(args.out, dict(sites=rows))
        return
    from mmdet_bpu.analysis.model_check import STEPS
    with Steps(STEPS + 1) as step:
        check = apis.check_model(cfg, args.march, args.checkpoint, step)
    print_sites(check.sites)
    print()
    for finding in check.findings:
        print(f'{finding} (unit: {finding.unit})')
    counts = summarize(check.findings)
    print(f'{check.instructions} integer instructions on {check.march}: '
          + ', '.join(f'{count} {level}s' for level, count in counts.items()))
    if args.out:
        write(args.out, check.as_dict())
    refuse_errors(check.findings, check.march)
    print('it can be deployed' + (', with the warnings above' if counts['warning'] else ''))


if __name__ == '__main__':
    main()
