"""Export a calibrated or trained detector to HBIR and to its integer form.

    tools/export_hbir.py configs/qat.py work_dirs/qat/epoch_6.pth --out deploy

Writes model.hbir.mlir (fake-quantized, for the vendor's compiler), model.int.mlir (integers, for
this package) and model.quant.json (every tensor with its dtype, scale and the rule that chose it).
"""
import argparse

from mmengine.config import DictAction

from mmdet_bpu.engine.stages import load_config
from mmdet_bpu.errors import exit_on_error
from mmdet_bpu.steps import Steps


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'config', help='config file, or mmdet::FOLDER/NAME.py of an installed package')
    parser.add_argument('checkpoint', help='checkpoint of stage calibration or qat')
    parser.add_argument('--out', required=True, metavar='DIR', help='folder to write')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
        help='override settings of the config')
    return parser.parse_args()


@exit_on_error
def main() -> None:
    args = parse_args()
    cfg = load_config(args.config, 'int', args.cfg_options)

    from mmdet_bpu import apis
    from mmdet_bpu.output_folder import staged_folder
    with Steps(2) as step:
        step('load and export')
        exported = apis.export_hbir(cfg, args.checkpoint)
        step('write')
        with staged_folder(args.out) as folder:
            names = sorted(apis.write_export(exported, folder))
    for name in names:
        print(f'{args.out}/{name}')


if __name__ == '__main__':
    main()
