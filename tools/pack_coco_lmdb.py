"""Pack a COCO data set into an LMDB database, or check a packed one."""
import argparse
import os
import sys
import time
from pathlib import Path

from mmdet_bpu.choices import CHECKS, ON_ERROR
from mmdet_bpu.errors import exit_on_error

YEAR = '2017'  # of the COCO files that --data-root looks for
INTERRUPTED = 130  # exit code of a program ended by Ctrl-C: 128 + SIGINT


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog='The database keeps the image files untouched and the annotations with them: '
        "training and evaluation need nothing else. Use it with dict(type='CocoLMDBDataset', "
        "lmdb='DIR') and dict(type='CocoLMDBMetric', lmdb='DIR'). Exit codes: 0 done, 2 bad input "
        'or a damaged database, 130 stopped by Ctrl-C.')
    source = parser.add_argument_group('what to pack')
    source.add_argument('--img-dir', metavar='DIR', help='folder of the images')
    source.add_argument('--ann', metavar='FILE', help='COCO annotation file (JSON)')
    source.add_argument('--unlabelled', action='store_true',
                        help='in place of --ann: pictures that nobody has annotated, all of --img-dir, at '
                        'any depth; for calibration, and for QAT with bpu.qat.labels=False')
    source.add_argument('--out', metavar='DIR',
                        help='database to write; appears under this name only when complete')
    source.add_argument('--data-root', metavar='DIR',
                        help='in place of the three: COCO in its own layout. With --split train: '
                        f'DIR/train{YEAR} and DIR/annotations/instances_train{YEAR}.json to '
                        'DIR/train_lmdb (or to --out)')
    source.add_argument('--split', metavar='NAME', help='train, val, ...; with --data-root')
    source.add_argument('--subset', type=int, metavar='N',
                        help='pack the first N images of the annotation file only')
    how = parser.add_argument_group('how')
    how.add_argument('--shards', type=int, default=1, metavar='N',
                     help='spread the images over N files, for storage with a limit of file size '
                     '(default: 1)')
    how.add_argument('--check-images', choices=CHECKS, default='header',
                     help='decode: decode each image by the function that training uses; header: it '
                     'is an image, and its file is not cut off; none: not empty (default: header)')
    how.add_argument('--on-error', choices=ON_ERROR, default='stop',
                     help='skip: leave out images that are missing or unusable, and annotations '
                     'that point at no image, and list them at the end (default: stop)')
    how.add_argument('--processes', type=int, metavar='N',
                     help='processes that read and check (default: one for each core, at most 4)')
    how.add_argument('--overwrite', action='store_true',
                     help='replace an earlier database, at the end; discard an interrupted packing')
    how.add_argument('--resume', action='store_true',
                     help='go on with an interrupted packing of the same input, if there is one')
    check = parser.add_argument_group('check')
    check.add_argument('--verify', metavar='DIR',
                       help='read every record of a packed database and check it; packs nothing')
    args = parser.parse_args()
    if args.verify is not None:
        if [name for name, value in vars(args).items()
                if name != 'verify' and value != parser.get_default(name)]:
            parser.error('--verify takes no other option')
        return args
    if (args.data_root is None) != (args.split is None):
        parser.error('--data-root and --split go together')
    if args.data_root is not None:
        if args.img_dir or args.ann:
            parser.error('--data-root and --split stand in place of --img-dir and --ann')
        root, name = Path(args.data_root), f'{args.split}{YEAR}'
        args.img_dir, args.ann = root / name, root / 'annotations' / f'instances_{name}.json'
        args.out = args.out or root / f'{args.split}_lmdb'
    if args.unlabelled and args.ann is not None:
        parser.error('--unlabelled stands in place of --ann, --data-root and --split')
    needed = {'--img-dir': args.img_dir, '--ann': args.unlabelled or args.ann, '--out': args.out}
    missing = [name for name, value in needed.items() if not value]
    if missing:
        parser.error(f'packing needs {", ".join(missing)} (or --data-root and --split; or check '
                     'with --verify DIR)')
    return args


@exit_on_error('subset', 'shards', 'check_images', 'on_error', 'processes', 'overwrite', 'resume')
def main() -> None:
    args = parse_args()
    try:
        from mmdet_bpu import apis
        start = time.monotonic()
        if args.verify is not None:
            meta, verb, path = apis.verify(args.verify, progress=True), 'verified', args.verify
        else:
            meta = apis.pack(args.img_dir, args.ann, args.out, args.overwrite, progress=True,
                             resume=args.resume, check_images=args.check_images,
                             on_error=args.on_error, subset=args.subset, shards=args.shards,
                             processes=args.processes)
            verb, path = 'packed', args.out
    except KeyboardInterrupt:
        advice = '' if args.verify is not None else ': go on with --resume'
        print(f'interrupted{advice}', file=sys.stderr)
        sys.exit(INTERRUPTED)
    for line in apis.report_lines(meta):
        print(line, file=sys.stderr)
    counts = meta['counts']
    left_out = len(meta['report']['skipped'])
    print(f"{verb} {os.fspath(path)}: {counts['images']} images, {counts['annotations']} "
          f"annotations, {counts['categories']} categories, "
          f"{counts['image_bytes'] / 1e6:.1f} MB of images, "
          f'{time.monotonic() - start:.1f} s' + (f', {left_out} skipped' if left_out else ''))


if __name__ == '__main__':
    main()
