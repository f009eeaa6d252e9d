"""Accuracy of integers by each way to find them, beside the float model: one cell a time, kept.

    python benchmarks/accuracy.py [--set digits|bccd|FOLDER] [--model deformable retinanet ...]
                                  [--seeds 3] [--methods default qat ...] [--cells PATTERN ...]

A cell is a set, a model, a seed and a method. Methods of one seed share a float model and one
calibration on images; a method that only chooses scales otherwise takes them from that
calibration's statistics. A cell that is there, made of the same inputs, is not run again, and a run
that was cut goes on where it was. ``FOLDER`` holds a packed COCO set, ``train_lmdb`` and
``val_lmdb``. ``--table`` only prints what is in ``--results``, as docs/quantization.md has it.

Without training a share is mAP of the integers over that of the float model that they were made of;
with QAT, over the control: the float model trained on for as many steps with the same recipe. QAT
without labels has the float model for its teacher, and is held against that. QAT has about 188 steps
whatever ``--epochs`` says. A model that finds nothing has mAP 0; shares of next to nothing say nothing.

The output of a step is in ``--work-dir``/SET-MODEL-SEED/STEP.log while it runs. Where inputs have changed,
what was made of others is set aside as NAME.before. One process works in a folder at a time.
"""
import argparse
import fnmatch
import json
import sys
from pathlib import Path
from typing import Iterable, List, Optional

from accuracy_methods import METHODS
from accuracy_results import Results
from accuracy_sets import DIGITS, MODELS, packed

from mmdet_bpu.command_line import key_value, positive
from mmdet_bpu.errors import BpuError, exit_on_error
from mmdet_bpu.output_folder import require_folder

RESULTS = Path(__file__).resolve().parent / 'results'


def wanted(name: str, model: str, seed: int, methods: Iterable[str],
           patterns: Optional[List[str]]) -> List[str]:
    """Those of ``methods`` whose cell's name, ``SET-MODEL-SEED-METHOD``, fits a pattern."""
    return [method for method in methods if patterns is None or any(
        fnmatch.fnmatch(f'{name}-{model}-{seed}-{method}', pattern) for pattern in patterns)]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--set', default=DIGITS, metavar='SET',
                        help='digits, bccd, or a folder with train_lmdb and val_lmdb (default: digits)')
    parser.add_argument('--model', nargs='+', choices=MODELS, default=['deformable'])
    parser.add_argument('--seeds', type=positive, default=1, metavar='N',
                        help='seeds 0 to N - 1 (default: 1)')
    parser.add_argument('--methods', nargs='+', choices=METHODS, default=list(METHODS),
                        metavar='METHOD', help=f'some of {", ".join(METHODS)} (default: all)')
    parser.add_argument('--cells', nargs='+', metavar='PATTERN',
                        help='only those whose name fits, as in digits-retinanet-*-default')
    parser.add_argument('--input-shape', nargs=2, type=int, metavar=('HEIGHT', 'WIDTH'),
                        help='px (default: the config\'s for digits, else 240 320)')
    parser.add_argument('--epochs', type=int,
                        help='of float training alone (default: as many steps as on the digits)')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/accuracy'),
                        help='folder of everything that is made (default: work_dirs/accuracy)')
    parser.add_argument('--results', type=Path, default=RESULTS,
                        help='folder of the cells (default: benchmarks/results)')
    parser.add_argument('--table', action='store_true', help='print the cells that are there')
    parser.add_argument('--cfg-options', nargs='+', type=key_value, default=[], metavar='KEY=VALUE',
                        help='overrides of the config, in every step')
    return parser.parse_args()


@exit_on_error()
def main() -> None:
    args = parse_args()
    if not args.table:
        run(args)
    results = Results.of(args.results)
    if not results.by_key:
        raise BpuError(f'--results {args.results}: expected files of cells, found none')
    print(results.table())


def run(args: argparse.Namespace) -> None:
    """Make the cells that were asked for."""
    from accuracy_cells import Cells, Demo
    require_folder(args.work_dir, '--work-dir')
    require_folder(args.results, '--results')
    args.work_dir.mkdir(parents=True, exist_ok=True)

    def make_digits(folder: Path) -> None:
        Demo(args.work_dir, folder).make_data()

    shape = tuple(args.input_shape) if args.input_shape else None
    data = packed(args.set, args.work_dir, shape, make_digits)
    asked, failed = 0, []
    for seed in range(args.seeds):
        for model in args.model:
            methods = wanted(data.name, model, seed, args.methods, args.cells)
            asked += len(methods)
            if methods:
                cells = Cells(data, model, seed, args.work_dir, args.results, args.epochs,
                              args.cfg_options)
                failed += [method for method in methods if not show(cells, method)]
    if not asked and args.cells:
        raise BpuError(f'no cell fits --cells {" ".join(args.cells)}: expected names like '
                       f'{data.name}-{args.model[0]}-0-default')
    if failed:
        raise BpuError(f'{len(failed)} cells failed: {", ".join(failed)}')


def show(cells, method: str) -> bool:
    """Make and print a cell; whether that went well. One that fails does not keep the others."""
    try:
        cell = cells.cell(method)
    except BpuError as error:
        print(f'error: {error}', file=sys.stderr)
        return False
    print(json.dumps({name: cell[name] for name in ('set', 'model', 'seed', 'method', 'metrics')}),
          flush=True)
    return True


if __name__ == '__main__':
    main()
