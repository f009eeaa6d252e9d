"""The digits detector by QAT in ways that a user may choose, and the same quality at the end.

    make demo && python benchmarks/same_quality.py [--only with_cp ...] [--images 752]

Each way starts from the demo's float weights, calibrates on 80 images and trains for one epoch of
``--images``: plain, with synchronized batch norms, with averaged weights, with recomputed
activations (``with_cp``), by iterations, in two processes with gloo, half a batch in each, and with softmax,
norms and sampling closed (``bpu.qat.closed``).
Prints a table and JSON: mAP of each, and its difference from the plain one.
"""
import argparse
import json
import sys
from pathlib import Path
from typing import Dict, Sequence

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / 'tools'))

from demo import Demo, execute_alone  # noqa: E402

from mmdet_bpu.errors import exit_on_error  # noqa: E402

BATCH = 8
TWO_PROCESSES = 'two_processes'
CONFIG = """
_base_ = {base!r}
bpu = dict(calibration=dict(num_batches=10))
train_dataloader = dict(dataset=dict(indices={images}))
steps = {steps}
param_scheduler = [dict(type='CosineAnnealingLR', eta_min_ratio=0.01, begin=0, end=steps,
                        T_max=steps, by_epoch=False)]
{more}
"""
WAYS: Dict[str, str] = {
    'plain': '',
    'sync_bn': "model = dict(backbone=dict(norm_cfg=dict(type='SyncBN')))",
    'ema': "custom_hooks = [dict(type='EMAHook', momentum=0.05)]",
    'with_cp': 'model = dict(backbone=dict(with_cp=True))',
    'iterations': """
train_dataloader['sampler'] = dict(_delete_=True, type='InfiniteSampler', shuffle=True)
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=steps)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=steps))
log_processor = dict(by_epoch=False)
""",
    TWO_PROCESSES: f"train_dataloader['batch_size'] = {BATCH // 2}",
    'closed': "bpu['qat'] = dict(closed=True)",
}
"""Way -> what its config says more."""


class Ways(Demo):
    """One QAT per way, each in a folder of its own."""

    def measure(self, way: str, source: Path, images: int, stage: str) -> dict:
        """mAP and mAP50 of a way, its model evaluated as ``stage``."""
        config = self.folder / f'{way}.py'
        config.write_text(CONFIG.format(base=str(ROOT / 'configs' / 'demo' / 'digits_qat.py'),
                                        images=images, steps=images // BATCH, more=WAYS[way]))
        arguments = ['--launcher', 'pytorch'] if way == TWO_PROCESSES else []
        trained = self.train(way, config, source, arguments)
        return self.test(way, config, trained, evaluated=stage)

    def execute(self, name: str, command: Sequence[str], log: Path) -> int:
        """As the demo's; by torchrun where two processes train."""
        if name != f'train_{TWO_PROCESSES}':
            return super().execute(name, command, log)
        by_two = ['-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '2']
        return execute_alone([sys.executable, *by_two, *command], log)


@exit_on_error()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--demo', type=Path, default=Path('work_dirs/demo'),
                        help='what make demo wrote (default: work_dirs/demo)')
    parser.add_argument('--data', type=Path, default=Path('data/digits'),
                        help='its data (default: data/digits)')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/same_quality'))
    parser.add_argument('--images', type=int, default=752, help='to train on (default: 752)')
    parser.add_argument('--only', nargs='+', choices=WAYS, default=list(WAYS), metavar='WAY',
                        help=f'of {", ".join(WAYS)} (default: all)')
    parser.add_argument('--stage', choices=('qat', 'int'), default='qat',
                        help='what to evaluate: the trained models, or their integers (default: qat)')
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    source = (args.demo / 'float' / 'final.pth').resolve()
    ways = Ways(args.out.resolve(), args.data.resolve())
    found = {way: ways.measure(way, source, args.images, args.stage) for way in args.only}
    for way, row in found.items():
        print(f'{way:<15}{row["mAP"]:>8.3f}{row["mAP50"]:>8.3f}')
    plain = found.get('plain')
    print(json.dumps({way: dict(mAP=row['mAP'], mAP50=row['mAP50'], **(
        dict(difference=round(row['mAP'] - plain['mAP'], 3)) if plain else {}))
        for way, row in found.items()}))


if __name__ == '__main__':
    main()
