"""QAT against integer, op by op between neighbouring quantizers, of one model.

Prints one JSON object: per op kind and type the number of ops and elements, the largest difference
in LSB and the share of differing elements; every op above 1 LSB with its cause; softmax and norms
as wholes, against the float function and against QAT with its inner roundings; and products
without a fake quantizer.

    python benchmarks/qat_vs_int.py model.hbir.mlir --images data/digits/images/val
    python benchmarks/qat_vs_int.py model.hbir.mlir          # noise that fills the input's range

Images are resized to the input and normalised as ``--mean`` and ``--std`` say (those of COCO
configs by default).
"""
import argparse
import json
import time
from pathlib import Path
from typing import Iterator

import cv2
import numpy as np
import torch

from mmdet_bpu.analysis.qat_vs_int import compare_qat_int, summarize
from mmdet_bpu.errors import BpuError, exit_on_error
from mmdet_bpu.hbir.builder import find_function
from mmdet_bpu.hbir.passes import conversion_of
from mmdet_bpu.hbir.text import read_text
from mmdet_bpu.hbir.types import value_type

# Of the stock mmdet configs, RGB.
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def images(args: argparse.Namespace, shape: tuple) -> Iterator[torch.Tensor]:
    """Normalised images (1, H, W, 3), or one noise image."""
    if args.images is None:
        yield torch.randn(shape, generator=torch.Generator().manual_seed(0))
        return
    paths = sorted(p for p in args.images.iterdir() if p.suffix.lower() in ('.jpg', '.png'))
    if not paths:
        raise BpuError(f'--images {args.images}: expected .jpg or .png files, found none')
    for path in paths[:args.num_images]:
        image = cv2.resize(cv2.imread(str(path)), (shape[2], shape[1]))[..., ::-1]
        image = (image.astype(np.float32) - np.float32(args.mean)) / np.float32(args.std)
        yield torch.from_numpy(image)[None]


def measure(args: argparse.Namespace) -> dict:
    """The comparison over all images."""
    module = read_text(args.hbir)
    shape = value_type(find_function(module).body.block.args[0]).shape
    start = time.perf_counter()
    conversion = conversion_of(module)
    results = [compare_qat_int(conversion, image) for image in images(args, shape)]
    ops = [row for result in results for row in result['ops']]
    wholes = [row for result in results for row in result['wholes']]
    elements = sum(row['elements'] for row in ops)
    return dict(
        hbir=args.hbir.name, images=len(results), seconds=round(time.perf_counter() - start, 1),
        max_lsb=max((row['max_lsb'] for row in ops), default=0),
        differing_share=sum(row['differing'] for row in ops) / max(elements, 1),
        by_kind=summarize(ops), above_one_lsb=[row for row in ops if row['max_lsb'] > 1],
        wholes=dict(against_float=summarize(wholes), against_qat=summarize(
            [dict(row, differing=row['qat_differing'], max_lsb=row['qat_max_lsb'])
             for row in wholes])),
        unrounded=[row for result in results for row in result['unrounded']])


@exit_on_error()
def main() -> None:
    """Parse arguments and print the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('hbir', type=Path, help='model.hbir.mlir of an export')
    parser.add_argument('--images', type=Path, help='folder of images; noise if left out')
    parser.add_argument('--num-images', type=int, default=4)
    parser.add_argument('--mean', type=float, nargs=3, default=MEAN)
    parser.add_argument('--std', type=float, nargs=3, default=STD)
    parser.add_argument('--threads', type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(json.dumps(measure(args), indent=1))


if __name__ == '__main__':
    main()
