"""Small detectors of three families, trained on the digits from scratch: mAP of every stage.

    python benchmarks/families_accuracy.py [--families retinanet rtmdet dino] [--json FILE]

Each is trained in float, calibrated, trained quantization-aware and turned into integers. The control
is the float model trained on for QAT's steps with QAT's recipe. A family has passed when the integers
have at least 0.99 of the better mAP of float and control. What is in the work folder already is not run
again.
"""
import argparse
from pathlib import Path
from typing import Dict, List

from mmdet_bpu.errors import exit_on_error
from mmdet_bpu.output_folder import write_json

FAMILIES = ('retinanet', 'rtmdet', 'dino')
STAGES = ('float', 'float_control', 'calibration', 'qat', 'int')  # columns of the table
KEPT = 0.99  # least share of the float mAP that the integers have


def row(family: str, found: Dict[str, dict], seconds: Dict[str, float]) -> dict:
    """What was measured of one family, and whether it has passed.

    Args:
        family (str): Its name.
        found (dict): Stage to its ``mAP`` and ``mAP50``.
        seconds (dict): Step to the time that it took.
    """
    best = max(found['float']['mAP'], found['float_control']['mAP'])
    share = found['int']['mAP'] / best if best > 0 else 0.0
    stages = {stage: {key: found[stage][key] for key in ('mAP', 'mAP50')} for stage in STAGES}
    return dict(family=family, config=f'configs/demo/digits_{family}.py', stages=stages,
                share=round(share, 4), passed=share >= KEPT, seconds=seconds)


def table(rows: List[dict]) -> str:
    """Rows as Markdown."""
    lines = ['| family | float | control | calibration | QAT | integers | of the better float |',
             '|---|---|---|---|---|---|---|']
    for one in rows:
        cells = [f'{one["stages"][stage]["mAP"]:.3f}' for stage in STAGES]
        verdict = '' if one['passed'] else ', too low'
        lines.append(f'| {one["family"]} | {" | ".join(cells)} | {one["share"]:.3f}{verdict} |')
    return '\n'.join(lines)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--families', nargs='+', choices=FAMILIES, default=FAMILIES)
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/families'),
                        help='folder of everything that is made (default: work_dirs/families)')
    parser.add_argument('--data', type=Path, default=Path('data/digits'),
                        help='folder of the data set; made if absent (default: data/digits)')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the rows')
    parser.add_argument('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE',
                        help='overrides of the config, in every step')
    return parser.parse_args()


@exit_on_error()
def main() -> None:
    args = parse_args()
    from family_training import Demo, FamilyTraining
    args.work_dir.mkdir(parents=True, exist_ok=True)
    Demo(args.work_dir, args.data).make_data()
    rows: List[dict] = []
    for family in args.families:
        print(f'{family}:', flush=True)
        training = FamilyTraining(family, args.work_dir / family, args.data, args.cfg_options)
        found = training.measure()
        rows.append(row(family, found, {
            step: given['seconds'] for step, given in training.state.items()}))
        if args.json is not None:
            write_json(args.json, rows)
    print(table(rows))
    raise SystemExit(0 if all(one['passed'] for one in rows) else 1)


if __name__ == '__main__':
    main()
