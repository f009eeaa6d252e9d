"""Write the embedded digits detection set (COCO format, JPEG files)."""
import argparse

from mmdet_bpu.errors import exit_on_error


@exit_on_error(out_dir='--out')
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--out', default='data/digits',
                        help='folder to make (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='default: %(default)s')
    parser.add_argument('--num-train', type=int, default=1500, help='default: %(default)s')
    parser.add_argument('--num-val', type=int, default=200, help='default: %(default)s')
    args = parser.parse_args()
    from mmdet_bpu import apis
    apis.make_digits(args.out, args.seed, args.num_train, args.num_val)


if __name__ == '__main__':
    main()
