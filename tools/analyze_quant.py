"""What does quantization cost a model, where, and how is it repaired?

    tools/analyze_quant.py compare CONFIG CHECKPOINT --out DIR
    tools/analyze_quant.py sensitivity CONFIG CALIBRATED.pth --out DIR
    tools/analyze_quant.py search CONFIG CALIBRATED.pth --out DIR

`tools/analyze_quant.py COMMAND --help` says what a command does and takes.
"""
import argparse
import importlib

from mmdet_bpu.command_line import command
from mmdet_bpu.errors import exit_on_error

COMMANDS = {
    'compare': 'mmdet_bpu.analysis.compare_command',
    'sensitivity': 'mmdet_bpu.analysis.sensitivity_command',
    'search': 'mmdet_bpu.analysis.search_command',
}


def parse_args() -> argparse.Namespace:
    parser = command(__doc__)
    commands = parser.add_subparsers(metavar='COMMAND', required=True, help=', '.join(COMMANDS))
    for name, module in COMMANDS.items():
        verb = importlib.import_module(module)
        subparser = commands.add_parser(
            name, help=verb.DESCRIPTION.strip().splitlines()[0], description=verb.DESCRIPTION,
            formatter_class=argparse.RawDescriptionHelpFormatter)
        verb.add_arguments(subparser)
        subparser.set_defaults(run=verb.run)
    return parser.parse_args()


@exit_on_error('against', 'images', 'int_images', 'score_thr', 'cfg_options', 'march',
               'first_order_images', 'tensors', 'evaluations', 'target_map', 'work_dir',
               out_dir='--out', float_checkpoint='--float')
def main() -> None:
    args = parse_args()
    args.run(args)


if __name__ == '__main__':
    main()
