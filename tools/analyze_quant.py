"""Find out what quantization costs a model, and where.

    tools/analyze_quant.py sensitivity CONFIG CALIBRATED.pth --out DIR
    tools/analyze_quant.py search CONFIG CALIBRATED.pth --out DIR

`tools/analyze_quant.py COMMAND --help` says what a command does and takes.
"""
import argparse
import importlib
from types import ModuleType
from typing import Dict

from mmdet_bpu.command_line import command
from mmdet_bpu.errors import exit_on_error

COMMANDS = {
    'search': 'mmdet_bpu.analysis.search_command',
    'sensitivity': 'mmdet_bpu.analysis.sensitivity_command',
}


def parse_args(modules: Dict[str, ModuleType]) -> argparse.Namespace:
    parser = command(__doc__)
    parsers = parser.add_subparsers(dest='command', metavar='COMMAND', required=True,
                                    help='what to find out:')
    for name, module in modules.items():
        module.add_arguments(parsers.add_parser(
            name, description=module.DESCRIPTION, help=module.DESCRIPTION.partition('\n')[0],
            formatter_class=argparse.RawDescriptionHelpFormatter))
    return parser.parse_args()


@exit_on_error('cfg_options', 'march', 'images', 'first_order_images', 'tensors', 'evaluations', 'target_map',
               'work_dir', out_dir='--out')
def main() -> None:
    modules = {name: importlib.import_module(home) for name, home in COMMANDS.items()}
    args = parse_args(modules)
    modules[args.command].run(args)


if __name__ == '__main__':
    main()
