"""Arguments that several commands share; quick to import, so that ``--help`` answers at once.

A command parses its arguments first and imports ``mmdet_bpu.apis`` after that.
"""
import argparse

from mmdet_bpu.choices import KERNELS
from mmdet_bpu.compiler.march import MARCHES, get_march
from mmdet_bpu.errors import BpuError

LAUNCHERS = ('none', 'pytorch', 'slurm', 'mpi')


def command(description: str) -> argparse.ArgumentParser:
    """Parser of a command whose docstring is shown as it is written."""
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


def add_config(parser: argparse.ArgumentParser) -> None:
    """The config that a command works on."""
    parser.add_argument(
        'config', help='config file, or mmdet::FOLDER/NAME.py of an installed package')


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """The checkpoint that an integer model is made from."""
    parser.add_argument('checkpoint', help='checkpoint of stage calibration or qat')


def add_config_options(parser: argparse.ArgumentParser, example: str = '') -> None:
    """Overrides of the config; :func:`mmdet_bpu.apis.load_config` reads them."""
    parser.add_argument(
        '--cfg-options', nargs='+', action='extend', type=key_value, metavar='KEY=VALUE',
        help='override settings of the config' + (f', e.g. {example}' if example else ''))


def add_kernels(parser: argparse.ArgumentParser) -> None:
    """Which kernel set computes an integer artefact."""
    parser.add_argument(
        '--kernels', choices=KERNELS, default=KERNELS[0],
        help='how the integers of an artefact are computed, with the same result: by compiled loops '
        '(fast; they need numba) or by the readable reference (default: %(default)s)')


def add_march(parser: argparse.ArgumentParser) -> None:
    """The march, by default the config's."""
    parser.add_argument(
        '--march', type=march, help=f"{', '.join(MARCHES)} (default: the config's bpu.march)")


def add_cores(parser: argparse.ArgumentParser) -> None:
    """How many cores of the march work, each on images of its own."""
    parser.add_argument(
        '--cores', type=positive, default=1, metavar='N',
        help='images per second of so many cores of the march (default: %(default)s)')


def add_out_folder(parser: argparse.ArgumentParser) -> None:
    """The folder of a command that writes several files."""
    parser.add_argument('--out', required=True, metavar='DIR', help='folder to write')


def add_launcher(parser: argparse.ArgumentParser) -> None:
    """How the processes of a distributed run are started."""
    parser.add_argument('--launcher', choices=LAUNCHERS, default='none', help='job launcher')
    # torch.distributed.launch passes it; torchrun sets the environment variable.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def key_value(text: str) -> str:
    """Check that an override has a key and a value."""
    if not text.partition('=')[0] or '=' not in text:
        raise argparse.ArgumentTypeError(f'expected KEY=VALUE, found {text!r}')
    return text


def positive(text: str) -> int:
    """Check a number of things."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'expected a positive whole number, found {text!r}')
    return int(text)


def whole_number(text: str) -> int:
    """Check a number of things that may be none."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f'expected a whole number from 0, found {text!r}')
    return int(text)


def march(name: str) -> str:
    """Check the name of a march."""
    try:
        return get_march(name).name
    except BpuError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
