"""Export a calibrated or trained detector and compile it to a .hbm.

    tools/deploy_bpu.py configs/qat.py work_dirs/qat/epoch_6.pth --out deploy
    tools/deploy_bpu.py configs/qat.py work_dirs/qat/epoch_6.pth --out deploy --backend hbdk4

Without the vendor's hbdk4, model.hbm runs in the simulator of this package, not on a board.
docs/deploy.md explains the files and the way to the board. model.report.html shows them: cost, graph,
detections in test pictures.
"""
import argparse
from collections import Counter

from mmdet_bpu.backends.choice import BACKENDS, choose_backend
from mmdet_bpu.command_line import (add_checkpoint, add_config, add_config_options, add_march,
                                    add_out_folder, command, whole_number)
from mmdet_bpu.errors import exit_on_error
from mmdet_bpu.steps import Steps


def parse_args() -> argparse.Namespace:
    parser = command(__doc__)
    add_config(parser)
    add_checkpoint(parser)
    add_out_folder(parser)
    add_march(parser)
    parser.add_argument(
        '--backend', choices=BACKENDS, default='auto',
        help='auto: hbdk4 if it is installed, else sim (default)')
    parser.add_argument(
        '--pictures', type=whole_number, metavar='N',
        help='draw what is detected in the first N test pictures into the report (default: 3 where the '
        "config's test data are at hand, else none)")
    parser.add_argument('--float-checkpoint', metavar='FILE',
                        help='draw what this float checkpoint detects beside it')
    parser.add_argument('--onnx', action='store_true',
                        help='write model.onnx too (needs the extra onnx)')
    add_config_options(parser)
    args = parser.parse_args()
    choose_backend(args.backend)
    return args


def print_summary(result, files: list, march: str) -> None:
    estimate = result.estimate
    print(f'compiled for {march} by {result.backend} in {result.seconds:.1f} s')
    if result.backend == 'sim':
        print(f'  latency   {estimate.latency_ms:.3f} ms, '
              f'{estimate.images_per_second:.2f} images/s '
              '(estimate, one core, without the host)')
        print(f'  DDR       {estimate.ddr_megabytes:.3f} MB per image (estimate)')
    else:
        speed = result.vendor_report.get('summary', {}).get('performance', {})
        print(f'  latency   {speed} (the vendor\'s report)')
    print(f'  memory    {estimate.memory_bytes / 2**20:.1f} MiB, weights and activations')
    counts = Counter(finding.level for finding in result.findings)
    print('  findings  ' + ', '.join(f'{counts[level]} {level}s'
                                     for level in ('error', 'warning', 'note')))
    rules = Counter(f'{f.level}: {f.op}: {f.rule}' for f in result.findings)
    for rule, number in rules.items():
        print(f'    {number} x {rule}')
    print('files')
    for file in files:
        print(f'  {file}')
    if result.backend == 'sim':
        print(f'{result.path} runs in the simulator of mmdet_bpu, not on a board.\n'
              'For the board: install the vendor\'s hbdk4 and give --backend hbdk4, or compile '
              'model.hbir.mlir with it;\nsee docs/deploy.md.')
    else:
        print(f'{result.path} is for the board; {result.simulator_path} runs in the simulator.')


@exit_on_error('march', 'backend', 'cfg_options', 'pictures', 'float_checkpoint', out_dir='--out')
def main() -> None:
    args = parse_args()
    from mmdet_bpu import apis
    cfg = apis.load_config(args.config, 'int', args.cfg_options)
    with Steps(apis.DEPLOY_STEPS) as step:
        result, files = apis.deploy(cfg, args.checkpoint, args.out, args.march, args.backend, step,
                                    args.onnx, args.pictures, args.float_checkpoint)
    print_summary(result, files, cfg.bpu.march)


if __name__ == '__main__':
    main()
