"""Stock mmdet configs through the whole chain, each in a process of its own.

    python benchmarks/families.py [--configs mmdet::a/b.py ...] [--shape H W] [--json FILE]

Prints a table as it goes and one line per refusal. A config has passed when every step of
``family_chain.py`` did: capture bit-equal, prepare, calibrate, HBIR, integers within 1 LSB of QAT
op by op (more only where the op's own scales show that the contract costs it), compile, simulator
equal, stock decoding of both, numpy decoding equal to it. The JSON is a list of
``{"config", "family", "passed", "step", "message", "max_lsb", "boxes", "seconds"}``.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import List, Tuple

TIME_LIMIT = 1800  # s, of one config


def run_one(config: str, shape: Tuple[int, int], out: Path) -> None:
    """Run the chain here and write its row."""
    warnings.simplefilter('ignore')
    from family_chain import Chain
    out.write_text(json.dumps(Chain(config, shape).run()), encoding='utf-8')


def run_apart(config: str, shape: Tuple[int, int], threads: int) -> dict:
    """:func:`run_one` in a process of its own, which may fail or take too long."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / 'row.json'
        command = [sys.executable, __file__, '--one', config, str(out), '--shape',
                   *map(str, shape)]
        row = dict(config=config, family=config.partition('::')[2].partition('/')[0],
                   passed=False, step='process', max_lsb=None, boxes={}, seconds=None)
        environment = dict(os.environ, OMP_NUM_THREADS=str(threads))
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIME_LIMIT,
                                  env=environment)
        except subprocess.TimeoutExpired:
            return dict(row, message=f'not done after {TIME_LIMIT} s')
        if 'Traceback' in done.stderr:
            print(done.stderr, file=sys.stderr)
        if out.is_file():
            return json.loads(out.read_text(encoding='utf-8'))
        lines = done.stderr.strip().splitlines()
        return dict(row, message=lines[-1] if lines else f'ended with {done.returncode}')


def line(row: dict, width: int) -> str:
    """A row of the table."""
    state = 'passed' if row['passed'] else f'stops at {row["step"]}: {row["message"]}'
    boxes = '/'.join(str(row['boxes'].get(key, '-')) for key in ('before', 'after', 'int'))
    lsb = '-' if row['max_lsb'] is None else row['max_lsb']
    return f'{row["config"]:{width}}  {lsb:>3} LSB  {boxes:>14} boxes  {row["seconds"]} s  {state}'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--configs', nargs='+', metavar='CONFIG',
                        help='mmdet::folder/name.py (default: those of family_configs.py)')
    parser.add_argument('--shape', nargs=2, type=int, metavar=('H', 'W'),
                        help='input of the network, px (default: the small one of each config)')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the rows')
    parser.add_argument('--processes', type=int, default=1, metavar='N',
                        help='configs at a time, one thread each (default: 1)')
    parser.add_argument('--one', nargs=2, metavar=('CONFIG', 'FILE'), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        run_one(args.one[0], tuple(args.shape), Path(args.one[1]))
        return
    from family_configs import CONFIGS, SMALL_SHAPE
    configs = args.configs or list(CONFIGS)
    shapes = [tuple(args.shape or CONFIGS.get(config, SMALL_SHAPE)) for config in configs]
    threads = max(1, (os.cpu_count() or 1) // args.processes)
    rows: List[dict] = []
    width = max(map(len, configs))
    with ThreadPoolExecutor(args.processes) as pool:
        for row in pool.map(lambda pair: run_apart(*pair, threads), zip(configs, shapes)):
            rows.append(row)
            print(line(row, width), flush=True)
            if args.json is not None:
                args.json.write_text(json.dumps(rows, indent=1) + '\n', encoding='utf-8')
    passed = [row for row in rows if row['passed']]
    print(f'{len(passed)} of {len(rows)} configs passed, of '
          f'{len({row["family"] for row in passed})} folders')
    raise SystemExit(0 if len(passed) == len(rows) else 1)


if __name__ == '__main__':
    main()
