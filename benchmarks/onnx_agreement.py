"""The QDQ model in ONNX Runtime and OpenVINO beside our QAT model, and what float alone costs.

    python benchmarks/onnx_agreement.py [--models deformable_detr retinanet rtmdet] [--images 2]
    python benchmarks/onnx_agreement.py --config CONFIG --checkpoint qat.pth --images 8
    python benchmarks/onnx_agreement.py --speed [--threads 2]

Per model and runtime, over the images:

* ``within 1 LSB``: share of int8 and of int16 elements, node by node: every ``QuantizeLinear`` an
  output, each node fed with the QAT model's values (ONNX Runtime with its graph optimizations off;
  OpenVINO's cannot be turned off); ``int32``: largest difference of an output that is not rounded, over
  its largest magnitude;
* ``differing``: share of elements that differ at all, node by node, and from the image on, where an
  output that is not rounded differs by more than 1/32767 of its largest magnitude;
* the row ``float64``: the noise floor, our QAT model against itself with products in float64;
  ``onnxruntime, float biases``: without the int32 biases that the board has and QAT has not;
* ``--speed``: milliseconds of an image, with each runtime's own optimizations, beside our fast
  kernels (exact integers), all in turn in one process, median over rounds and images.

The named models are stock ones at a small shape, with random weights under which their heads find
something (``family_weights.py``), scales of a calibration on images of digits; the values of all
roundings of Deformable DETR take up to 8 GB. Exit code 1 where ONNX
Runtime does not keep to what docs/onnx.md promises node by node; OpenVINO is left out where it is not
installed.
"""
import argparse
import json
import statistics
import warnings
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Sequence, Tuple

import torch
from machine_facts import machine
from torch import Tensor

from mmdet_bpu.errors import BpuError, exit_on_error
from mmdet_bpu.graph.quantized_graph import QuantizedGraph

MODELS = dict(
    deformable_detr='mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py',
    retinanet='mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
    rtmdet='mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py')
FLOOR, WITHOUT_BIASES = 'float64', 'onnxruntime, float biases'
LEAST_WITHIN = dict(int8=0.9999, int16=0.999)
MOST_APART = 1e-5  # of an int32 output's largest magnitude


class Subject(NamedTuple):
    """A calibrated network and images for it, normalised (1, C, H, W)."""
    name: str
    network: QuantizedGraph
    images: List[Tensor]


def stock(name: str, count: int) -> Subject:
    """A stock model with random weights; its scales are those of two images."""
    from family_chain import Chain
    from family_configs import CONFIGS
    from family_images import batch_of, digit_images
    chain = Chain(MODELS[name], CONFIGS[MODELS[name]])
    with torch.no_grad():
        for step in (chain.build, chain.capture, chain.prepare, chain.calibrate, chain.hbir):
            step()
    images = batch_of(chain.model, digit_images(count, chain.shape, seed=1)).inputs
    return Subject(name, chain.networks[0], list(images.split(1)))


def trained(config: str, checkpoint: str, count: int) -> Subject:
    """A user's checkpoint and the first images of its validation data."""
    from mmdet_bpu import apis
    from mmdet_bpu.apis.models import load_quantized
    from mmdet_bpu.engine.val_images import images_of, val_loader
    from mmdet_bpu.lowering.onnx_form.files import only_network
    from mmdet_bpu.quantization import quantized_graphs
    cfg = apis.load_config(config, 'qat')
    model = load_quantized(cfg, checkpoint)
    images = [image[None] for image, _ in images_of(val_loader(cfg), model, count)]
    if not images:
        raise BpuError(f'{config}: expected validation images, found none')
    return Subject(Path(checkpoint).name, only_network(quantized_graphs(model)), images)


def agreement(subject: Subject) -> Dict[str, Dict[str, Any]]:
    """Runtime -> its row, the floor last."""
    from onnx_runtimes import AGREEING, FloatBiases

    from mmdet_bpu.analysis.onnx_nodes import OnnxNodes
    from mmdet_bpu.analysis.qat_roundings import QatRoundings, compare
    qat = QatRoundings(subject.network)
    sides: Dict[str, Any] = {
        name: OnnxNodes(subject.network, runtime) for name, runtime in AGREEING.items()}
    sides[WITHOUT_BIASES] = OnnxNodes(subject.network, writer=FloatBiases)
    sides[FLOOR], rows = qat, {}
    for name, side in sides.items():
        try:
            found = compare(dict(fed=side.fed, alone=side.alone), qat, subject.images)
        except Exception as error:  # of a runtime that is not ours
            if name == FLOOR:
                raise
            rows[name] = dict(failed=f'{type(error).__name__}: {" ".join(str(error).split())[:200]}')
            continue
        fed, alone = found['fed'], found['alone']
        worst = max(fed.nodes.values(), key=lambda node: (node.beyond, node.differing))
        rows[name] = dict(
            elements={dtype: fed.elements(dtype) for dtype in LEAST_WITHIN},
            within={dtype: fed.within(dtype) for dtype in LEAST_WITHIN},
            differing={dtype: fed.differing(dtype) for dtype in LEAST_WITHIN},
            int32=fed.largest_output(), largest_lsb=max(n.largest for n in fed.nodes.values()),
            worst=dict(site=worst.site, dtype=worst.dtype, beyond=worst.beyond,
                       elements=worst.elements, largest_lsb=worst.largest),
            end_to_end={dtype: alone.differing(dtype) for dtype in LEAST_WITHIN},
            end_to_end_outputs=alone.differing_outputs())
    return rows


def agrees(row: Dict[str, Any]) -> bool:
    """Whether a row keeps to the promise node by node."""
    return 'failed' not in row and row['int32'] <= MOST_APART and all(
        row['within'][dtype] >= least for dtype, least in LEAST_WITHIN.items())


def speed(subject: Subject, threads: int, repeats: int) -> Dict[str, Any]:
    """Milliseconds per image of each runtime and of our fast kernels."""
    from onnx_runtimes import QUICK
    from training_steps import timed

    from mmdet_bpu.engine.artifact_detector import quantize_image
    from mmdet_bpu.executors import Interpreter
    from mmdet_bpu.hbir.integer_program import program_from_module
    from mmdet_bpu.lowering.artifacts import to_integers
    from mmdet_bpu.lowering.onnx_form.model import model_of
    torch.set_num_threads(threads)
    program = program_from_module(to_integers([subject.network]).integer)
    ours, spec = Interpreter(program, kernels='fast'), program.spec(program.inputs[0])
    levels = [{spec.name: quantize_image(image[0], spec.scale)} for image in subject.images]
    model = model_of(subject.network)
    feeds = [{model.graph.input[0].name: image.numpy()} for image in subject.images]
    found: Dict[str, Any] = {}
    runs: Dict[str, Callable[[], None]] = {'ours, fast': _over(ours.run, levels)}
    for name, opened in QUICK.items():
        try:
            runs[name] = _over(opened(model, threads), feeds)
            runs[name]()
        except Exception as error:  # of a runtime that is not ours
            runs.pop(name, None)
            found[name] = f'{type(error).__name__}: {" ".join(str(error).split())[:200]}'
    seconds = timed(runs, repeats)
    return {**found, **{name: round(1e3 * statistics.median(each) / len(subject.images), 2)
                        for name, each in seconds.items()}}


def _over(run: Callable[[Any], Any], inputs: Sequence[Any]) -> Callable[[], None]:

    def over() -> None:
        for each in inputs:
            run(each)

    return over


def table(name: str, rows: Dict[str, Dict[str, Any]]) -> str:
    """Rows of the table in docs/onnx.md; shares in percent."""
    lines = []
    for runtime, row in rows.items():
        if 'failed' in row:
            lines.append(f'| {name} | {runtime} | {row["failed"]} |')
            continue
        shares = [*(row['within'][d] for d in LEAST_WITHIN), *(row['differing'][d] for d in LEAST_WITHIN)]
        ends = [*(row['end_to_end'][d] for d in LEAST_WITHIN), row['end_to_end_outputs']]
        cells = [*(f'{100 * x:.5g}' for x in shares[:2]), f'{row["int32"]:.1e}',
                 *(f'{100 * x:.3g}' for x in (*shares[2:], *ends))]
        lines.append(f'| {name} | {runtime} | {" | ".join(cells)} |')
    return '\n'.join(lines)


HEAD = ('| model | runtime | int8 within 1 LSB, % | int16 within 1 LSB, % | int32 | int8 differing, % | '
        'int16 differing, % | int8 from the image on, % | int16 | outputs |\n' + '|---' * 10 + '|')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--models', nargs='+', choices=MODELS, default=list(MODELS))
    parser.add_argument('--config', help='config of --checkpoint, instead of --models')
    parser.add_argument('--checkpoint', help='of a calibration or of QAT')
    parser.add_argument('--images', type=int, default=2, help='of each model (default: 2)')
    parser.add_argument('--speed', action='store_true', help='time the runtimes too')
    parser.add_argument('--threads', type=int, default=2, help='of each runtime (default: 2)')
    parser.add_argument('--repeats', type=int, default=7, help='rounds of --speed (default: 7)')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write what was found')
    args = parser.parse_args()
    if (args.config is None) != (args.checkpoint is None):
        parser.error('--config and --checkpoint go together')
    for name in ('images', 'threads', 'repeats'):
        if getattr(args, name) < 1:
            parser.error(f'--{name}: expected 1 or more, found {getattr(args, name)}')
    return args


@exit_on_error()
def main() -> None:
    """Print the tables."""
    args = parse_args()
    warnings.simplefilter('ignore')
    subjects: List[Tuple[Callable[..., Subject], tuple]] = [(stock, (name, )) for name in args.models]
    if args.config:
        subjects = [(trained, (args.config, args.checkpoint))]
    found: Dict[str, Any] = dict(machine=machine(), images=args.images, models={})
    print(HEAD, flush=True)
    for make, arguments in subjects:
        subject = make(*arguments, args.images)
        rows = agreement(subject)
        print(table(subject.name, rows), flush=True)
        found['models'][subject.name] = dict(
            input=list(subject.images[0].shape), runtimes=rows, agrees=agrees(rows['onnxruntime']))
        if args.speed:
            times = speed(subject, args.threads, args.repeats)
            found['models'][subject.name]['milliseconds'] = times
            print(f'{subject.name}, ms of an image: {json.dumps(times)}', flush=True)
        if args.json is not None:
            args.json.write_text(json.dumps(found, indent=1) + '\n', encoding='utf-8')
    bad = [name for name, row in found['models'].items() if not row['agrees']]
    if bad:
        raise SystemExit(f'not within what docs/onnx.md promises: {", ".join(bad)}')


if __name__ == '__main__':
    main()
