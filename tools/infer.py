"""Detect in pictures and draw the boxes.

    tools/infer.py deploy/model.hbm photos --out seen
    tools/infer.py work_dirs/qat/epoch_6.pth photo.jpg --config configs/qat.py --out seen
    tools/infer.py work_dirs/float/epoch_50.pth photos --config configs/qat.py \\
        --compare deploy/model.hbm --out seen

    tools/infer.py deploy/model.hbm recorded --nv12 1920x1080 --out seen

MODEL is a .pth of any stage, which needs --config, or a model.int.mlir or model.hbm, which needs
nothing. The drawn pictures and detections.json appear in the folder together. What is no picture
that can be read is named, skipped and listed there; exit code 2 if nothing is left. With --nv12 a
model that takes a camera's frames is given files that are no pictures by their names as raw NV12
frames: all of Y, then U and V interleaved, one frame to a file.
"""
import argparse
import re
import sys

from mmdet_bpu.command_line import add_config_options, add_kernels, add_out_folder, command
from mmdet_bpu.errors import BpuError, exit_on_error


def parse_args() -> argparse.Namespace:
    parser = command(__doc__)
    parser.add_argument('model', help='a .pth, .int.mlir or .hbm file')
    parser.add_argument('images', nargs='+', help='pictures, or folders of pictures')
    add_out_folder(parser)
    parser.add_argument('--config', help='config of a .pth')
    parser.add_argument(
        '--compare', metavar='MODEL', help='draw what this model detects beside it')
    parser.add_argument(
        '--score-thr', type=float, default=0.3, help='least score of a box (default: 0.3)')
    parser.add_argument(
        '--nv12', metavar='WIDTHxHEIGHT',
        help='size of raw NV12 frames, px; in folders: *.nv12, *.raw, *.yuv')
    parser.add_argument(
        '--deploy-preprocessing', action='store_true',
        help='feed a float model as the board is fed: resized as bpu.resize says')
    add_kernels(parser)
    add_config_options(parser)
    return parser.parse_args()


@exit_on_error('score_thr', 'cfg_options', out_dir='--out', frame_size='--nv12')
def main() -> None:
    args = parse_args()
    from mmdet_bpu import apis

    def config_of(stage: str):
        if args.config is None:
            raise BpuError('a .pth needs the config that it was made with: --config FILE')
        cfg = apis.load_config(args.config, stage, args.cfg_options)
        if args.deploy_preprocessing:
            cfg.bpu.deploy_preprocessing = True
        return cfg

    frame_size = None
    if args.nv12 is not None:
        if re.fullmatch(r'[1-9]\d{0,8}x[1-9]\d{0,8}', args.nv12) is None:
            raise BpuError('--nv12: expected WIDTHxHEIGHT in px, as 1920x1080, found '
                           f'{args.nv12!r}')
        frame_size = tuple(map(int, args.nv12.split('x')))
    models = [args.model] + ([args.compare] if args.compare else [])
    result = apis.infer(models, args.images, args.out, config_of, args.score_thr,
                        args.kernels, frame_size)
    boxes = [sum(len(image['detections'][i]) for image in result['images'])
             for i in range(len(models))]
    for each in result['skipped']:
        print(f'skipped: {each["reason"]}', file=sys.stderr)
    for title, number in zip(result['models'], boxes):
        print(f'{title}: {number} boxes with a score of at least {args.score_thr} in '
              f'{len(result["images"])} pictures')
    print(f'{args.out}/detections.json')


if __name__ == '__main__':
    main()
