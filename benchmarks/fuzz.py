"""Feed mutated files to the product and count what it does with them.

    python benchmarks/fuzz.py --cases 1000 --seed 0 [--only hbm] [--first 17 --cases 1]

The cases are spread evenly over the kinds. Per kind: how many were tried, refused with a message,
accepted with equal output, accepted with different output, uncaught (an exception that is no
BpuError), over 10 s, over 1 GiB beyond the stated budget, crashed. The last line is JSON.
Ends with 0 if the last five are 0, else with 1.
"""
import argparse
import json
import sys

from fuzzing.campaign import FAULTS, kind_names, load_kind, run_kind

COLUMNS = ('tried', 'refused', 'equal', 'different', 'uncaught', 'slow', 'memory', 'crashed')


def main() -> int:
    names = kind_names()
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--cases', type=int, default=1000,
                        help='of all kinds together (default: 1000)')
    parser.add_argument('--seed', type=int, default=0, help='of the campaign (default: 0)')
    parser.add_argument('--only', choices=names, action='append', metavar='KIND',
                        help=f'kinds to run: {", ".join(names)} (default: all)')
    parser.add_argument('--first', type=int, default=0, help='index of the first case; with '
                        '--cases 1 a case is repeated alone (default: 0)')
    arguments = parser.parse_args()
    chosen, by_kind = arguments.only or names, {}
    print(f'{"kind":12}' + ''.join(f'{column:>10}' for column in COLUMNS), flush=True)
    for place, name in enumerate(chosen):
        cases = (arguments.cases + len(chosen) - 1 - place) // len(chosen)
        tally = run_kind(load_kind(name), cases, arguments.seed, arguments.first,
                         progress=lambda done: print(f'\r{name}: {done}', end='', file=sys.stderr))
        counts = by_kind[name] = tally.counts()
        print('\r' + f'{name:12}' + ''.join(f'{counts[column]:>10}' for column in COLUMNS))
        for fault in tally.faults:
            print('  ' + fault)
        sys.stdout.flush()
    total = {key: sum(counts[key] for counts in by_kind.values()) for key in FAULTS}
    cases = sum(counts['tried'] for counts in by_kind.values())
    print(json.dumps(dict(cases=cases, **total, by_kind=by_kind)))
    return int(any(total.values()))


if __name__ == '__main__':
    raise SystemExit(main())
