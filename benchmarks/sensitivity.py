"""Does the ranking of ``tools/analyze_quant.py sensitivity`` hold? Against all validation images.

    python benchmarks/sensitivity.py CONFIG CALIBRATED.pth sensitivity.json --seed 0

Draws tensors from equal thirds of a ranking and quantizes each alone, in int8, on all validation
images: the change of the loss, in runs whose batches hold the images in other orders, and the change
of mAP. Prints one JSON object: Spearman's correlation of the ranking's score with the mean change of
the loss, over those whose change exceeds twice the spread of the runs; how many these are; and whether
every tensor that costs 0.005 mAP or more is in the first fifth of the ranking. Each tensor's part is
kept in ``--work-dir`` as soon as it is measured, so a run that was cut off goes on.
"""
import argparse
import json
import random
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Dict, List, Sequence

import torch
from torch import nn

from mmdet_bpu import apis
from mmdet_bpu.analysis.alone import Alone
from mmdet_bpu.analysis.sensitivity import TensorMeasurement
from mmdet_bpu.command_line import positive
from mmdet_bpu.engine.labelled_images import LabelledImages
from mmdet_bpu.engine.validation import Validation
from mmdet_bpu.errors import BpuError, exit_on_error
from mmdet_bpu.output_folder import write_json
from mmdet_bpu.quantization.scale_choice import ScaleChoice, weight_names

COSTLY = 0.005  # mAP
MOST_BATCH = 25  # images; larger ones take longer, not shorter


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config')
    parser.add_argument('checkpoint', help='calibrated checkpoint of the ranking')
    parser.add_argument('ranking', type=Path, help='sensitivity.json')
    parser.add_argument('--seed', type=int, default=0, help='of the draw and of the orders')
    parser.add_argument('--draw', type=positive, default=30, metavar='N')
    parser.add_argument('--runs', type=positive, default=5, metavar='N')
    parser.add_argument('--map-of-all', action='store_true',
                        help='measure the mAP of every tensor, not only of those drawn')
    parser.add_argument('--work-dir', type=Path, required=True)
    parser.add_argument('--cfg-options', nargs='+', default=[])
    return parser.parse_args()


def drawn(names: Sequence[str], count: int, seed: int) -> List[str]:
    """``count`` names, as many from each third of the list."""
    chance, chosen = random.Random(seed), []
    for third in range(3):
        part = names[third * len(names) // 3:(third + 1) * len(names) // 3]
        chosen += chance.sample(part, min(count // 3, len(part)))
    return chosen


class Kept:
    """Numbers that are on the disk as soon as they are known.

    Args:
        path (Path): A JSON file.
        key (dict): What they hold for; others are forgotten.
    """

    def __init__(self, path: Path, key: Dict[str, Any]) -> None:
        self.path, self.key, self.numbers = path, key, {}
        if path.is_file():
            known = json.loads(path.read_text(encoding='utf-8'))
            if known['key'] == key:
                self.numbers = known['numbers']

    def get(self, name: str, measure) -> Any:
        """The number of that name, measured if it is not known."""
        if name not in self.numbers:
            self.numbers[name] = measure()
            write_json(self.path, dict(key=self.key, numbers=self.numbers))
            print(f'{len(self.numbers)}: {name} {self.numbers[name]}', flush=True)
        return self.numbers[name]


def loss_changes(model: nn.Module, choice: ScaleChoice, images: LabelledImages, run: int, seed: int,
                 names: Sequence[str], kept: Kept) -> None:
    """Mean change of the loss over all images by each tensor alone, the images in one order."""
    if all(f'loss {run} {name}' in kept.numbers for name in names):
        return
    order = list(range(len(images.dataset)))
    random.Random(seed * 1000 + run).shuffle(order)
    batches = list(images.batches(model, order, MOST_BATCH))
    measurement = TensorMeasurement(model, choice, batches)
    for name in names:
        kept.get(f'loss {run} {name}', lambda: mean(
            change for change, _ in measurement.changes(name, 'int8', range(len(batches)))))


def map_alone(model: nn.Module, choice: ScaleChoice, validation: Validation, name: str) -> float:
    """mAP with one tensor in int8."""
    weights = {name} & set(weight_names(model))
    activations = {} if weights or not name else {name: ('int8', choice.scale(name, 'int8'))}
    with Alone(model).quantizing(activations, weights):
        return validation.mean_average_precision(model)


def ranks(values: Sequence[float]) -> torch.Tensor:
    """Ranks from 0; equal values, which floats of measurements are not, by their order."""
    return torch.tensor(values, dtype=torch.float64).argsort().argsort().double()


def spearman(left: Sequence[float], right: Sequence[float]) -> float:
    """Correlation of the ranks."""
    return torch.corrcoef(torch.stack([ranks(left), ranks(right)]))[0, 1].item()


@exit_on_error('cfg_options')
def main() -> None:
    args = parse_args()
    ranking = json.loads(args.ranking.read_text(encoding='utf-8'))['tensors']
    names = [row['tensor'] for row in ranking]
    scores = {row['tensor']: row['score'] for row in ranking}
    chosen = drawn(names, args.draw, args.seed)
    cfg = apis.load_config(args.config, 'calibration', args.cfg_options)
    model, choice = apis.load_with_statistics(cfg, args.checkpoint)
    if set(names) != {*choice.quantizers, *weight_names(model)}:
        raise BpuError(f'{args.ranking} is the ranking of another model')
    args.work_dir.mkdir(parents=True, exist_ok=True)
    kept = Kept(args.work_dir / 'measured.json', dict(checkpoint=args.checkpoint, seed=args.seed))
    images = LabelledImages(cfg)
    for run in range(args.runs):
        loss_changes(model, choice, images, run, args.seed, chosen, kept)
    validation = Validation(cfg, model)
    float_map = kept.get('mAP', lambda: map_alone(model, choice, validation, ''))
    maps = {name: kept.get(f'mAP {name}', lambda: map_alone(model, choice, validation, name))
            for name in (names if args.map_of_all else chosen)}
    rows = []
    for name in chosen:
        changes = [kept.numbers[f'loss {run} {name}'] for run in range(args.runs)]
        spread = stdev(changes) if len(changes) > 1 else 0.0
        rows.append(dict(tensor=name, rank=names.index(name) + 1, score=scores[name],
                         loss_change=mean(changes), spread=spread,
                         counts=abs(mean(changes)) > 2 * spread, map_lost=float_map - maps[name]))
    counted = [row for row in rows if row['counts']]
    costly = [name for name, value in maps.items() if float_map - value >= COSTLY]
    print(json.dumps(dict(
        tensors=len(names), drawn=len(chosen), seed=args.seed, runs=args.runs,
        counted=len(counted),
        spearman=spearman([row['score'] for row in counted],
                          [row['loss_change'] for row in counted]),
        map_float=float_map, map_measured=len(maps), costly={
            name: dict(map_lost=float_map - maps[name], rank=names.index(name) + 1)
            for name in costly},
        costly_in_first_fifth=all(names.index(name) < len(names) / 5 for name in costly),
        rows=rows), indent=1))


if __name__ == '__main__':
    main()
