"""Pack a COCO data set into one LMDB database, or check a packed one."""
import argparse
import time

from mmdet_bpu.datasets.lmdb_packer import pack_coco
from mmdet_bpu.datasets.lmdb_verify import verify_database
from mmdet_bpu.errors import exit_on_error


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog='The database keeps the image files untouched and the annotations with them: '
        "training and evaluation need nothing else. Use it with dict(type='CocoLMDBDataset', "
        "lmdb='DIR') and dict(type='CocoLMDBMetric', lmdb='DIR').")
    parser.add_argument('--img-dir', metavar='DIR', help='folder of the images')
    parser.add_argument('--ann', metavar='FILE', help='COCO annotation file (JSON)')
    parser.add_argument('--out', metavar='DIR',
                        help='database to write; appears under this name only when complete')
    parser.add_argument('--overwrite', action='store_true', help='replace an earlier database')
    parser.add_argument('--verify', metavar='DIR',
                        help='read every record of a packed database and check it; packs nothing')
    args = parser.parse_args()
    packing = {'--img-dir': args.img_dir, '--ann': args.ann, '--out': args.out}
    if args.verify is None:
        missing = [name for name, value in packing.items() if value is None]
        if missing:
            parser.error(f'packing needs {", ".join(missing)} (or check with --verify DIR)')
    elif args.overwrite or any(value is not None for value in packing.values()):
        parser.error('--verify takes no other option')
    return args


@exit_on_error
def main() -> None:
    args = parse_args()
    start = time.monotonic()
    if args.verify is not None:
        meta, verb, path = verify_database(args.verify), 'verified', args.verify
    else:
        meta = pack_coco(args.img_dir, args.ann, args.out, args.overwrite, progress=True)
        verb, path = 'packed', args.out
    counts = meta['counts']
    print(f"{verb} {path}: {counts['images']} images, {counts['annotations']} annotations, "
          f"{counts['categories']} categories, {counts['image_bytes'] / 1e6:.1f} MB of images, "
          f'{time.monotonic() - start:.1f} s')


if __name__ == '__main__':
    main()
