"""An executable evaluated inside mmengine gives what the board would compute."""
import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmdet_bpu.engine.artifact_detector import ArtifactDetector, quantize_image
from mmdet_bpu.engine.evaluation import evaluate
from mmdet_bpu.engine.runner import BPURunner
from mmdet_bpu.engine.stages import load_config
from mmdet_bpu.errors import BpuError
from mmdet_bpu.executors.interpreter import Interpreter
from mmdet_bpu.hbir.integer_program import program_from_module
from mmdet_bpu.lowering.export import export_networks
from mmdet_bpu.quantization import quantized_graphs
from mmdet_bpu.hbir.passes import convert
from mmdet_bpu.program.program import TensorSpec
from mmdet_bpu.families.base import FAMILIES
from mmdet_bpu.families.contract import deploy_metadata
from mmdet_bpu.families.detector_path import example_samples
from mmdet_bpu.families.output_tree import leaves, tensors_of
from mmdet_bpu.graph.functional_forms import map_tensors

QUERIES = 10


@dataclass
class FixedExecutable:
    """Returns the same integers for every image and keeps what it was given."""
    inputs: list
    outputs: list
    results: dict
    metadata: dict

    def run(self, inputs):
        self.given = inputs
        return self.results


def fixed_executable(metadata=None, image_dtype='si8'):
    boxes = torch.full((1, QUERIES, 4), 64, dtype=torch.int16)  # 64 / 256: a quarter
    boxes[0, 0] = torch.tensor([128, 128, 128, 64])
    logits = torch.full((1, QUERIES, 3), -1000, dtype=torch.int32)
    logits[0, 0, 2] = 300  # 3.0
    return FixedExecutable(
        inputs=[TensorSpec('image', (1, 64, 64, 3), image_dtype, 0.5)],
        # Not in the head's order: metadata gives it.
        outputs=[TensorSpec('boxes', tuple(boxes.shape), 'si16', 1 / 256),
                 TensorSpec('logits', tuple(logits.shape), 'si32', 0.01)],
        results=dict(boxes=boxes, logits=logits),
        metadata=metadata or dict(outputs=[dict(name='logits'), dict(name='boxes')]))


@pytest.fixture(scope='module')
def detector(tiny_config):
    cfg = load_config(str(tiny_config), 'int')
    with DefaultScope.overwrite_default_scope('mmdet'):
        return MODELS.build(cfg.model).eval()


def test_the_image_is_quantized_to_nearest_ties_to_even_and_saturates():
    values = np.array([0.25, 0.75, -0.25, 1.3, 63.4, 64.0, -64.25, -99], dtype=np.float32)
    image = torch.from_numpy(np.tile(values, (3, 1, 1)))
    quantized = quantize_image(image, 0.5)
    assert quantized.shape == (1, 1, 8, 3) and quantized.dtype == torch.int8
    assert quantized[0, 0, :, 0].tolist() == [0, 2, 0, 3, 127, 127, -128, -128]


@pytest.mark.parametrize('scale', [0.0173, 0.020713, 1 / 3])
def test_the_image_is_quantized_as_in_training(scale):
    image = torch.linspace(-3, 3, 3 * 4096).view(3, 64, 64)
    scale = torch.tensor(scale)
    trained = torch.fake_quantize_per_tensor_affine(image, scale.item(), 0, -128, 127)
    levels = quantize_image(image, scale.item())[0].permute(2, 0, 1)
    assert torch.equal(levels.float() * scale, trained)


def test_outputs_become_detections_in_the_original_image(detector):
    executable = fixed_executable()
    model = ArtifactDetector(detector, executable)
    sample = DetDataSample(
        metainfo=dict(img_shape=(64, 64), scale_factor=(0.5, 1.0), ori_shape=(64, 128)))
    data = dict(inputs=[torch.full((3, 64, 64), 123, dtype=torch.uint8)], data_samples=[sample])
    result = model.test_step(data)[0].pred_instances
    assert result.labels[0] == 2
    assert result.scores[0].item() == pytest.approx(1 / (1 + np.exp(-3)))
    # cx, cy, w, h = 0.5, 0.5, 0.5, 0.25 of 64 x 64 px; x doubled back to the original width.
    assert result.bboxes[0].tolist() == pytest.approx([32, 24, 96, 40])
    # mean and std of the config, RGB from BGR, then scale 0.5.
    expected = np.rint((np.float32(123) - np.float32([123.675, 116.28, 103.53]))
                       / np.float32([58.395, 57.12, 57.375]) * np.float32(2))
    assert executable.given['image'][0, 5, 7].tolist() == expected.tolist()


def test_images_of_a_batch_run_one_by_one(detector):
    model = ArtifactDetector(detector, fixed_executable())
    samples = [DetDataSample(metainfo=dict(img_shape=(64, 64), scale_factor=(1.0, 1.0)))
               for _ in range(3)]
    data = dict(inputs=[torch.zeros(3, 64, 64, dtype=torch.uint8)] * 3, data_samples=samples)
    assert len(model.test_step(data)) == 3


def test_an_image_of_another_shape_is_refused(detector):
    model = ArtifactDetector(detector, fixed_executable())
    with pytest.raises(BpuError, match=r"'image': expected .*\(1, 64, 64, 3\).*\(1, 32, 64, 3\)"):
        model.head_outputs(torch.zeros(3, 32, 64))


@pytest.mark.parametrize('executable, words', [
    (fixed_executable(image_dtype='si16'), 'one int8 image'),
    (fixed_executable(metadata=dict(outputs=['scores', 'boxes'])),
     'no scores among boxes, logits')])
def test_an_executable_that_does_not_fit_is_refused(detector, executable, words):
    with pytest.raises(BpuError, match=words):
        ArtifactDetector(detector, executable).head_outputs(torch.zeros(3, 64, 64))


def test_a_head_that_does_not_decode_is_refused(detector):
    class Other(torch.nn.Module):
        bbox_head = torch.nn.Identity()
        data_preprocessor = detector.data_preprocessor
        extract_feat = None

    with pytest.raises(BpuError, match='head with predict_by_feat, found Identity'):
        ArtifactDetector(Other())


def test_an_artefact_of_another_head_is_refused(detector):
    decoding = dict(family='detr', head='FCOSHead')
    metadata = dict(outputs=['logits', 'boxes'], postprocessing=decoding)
    with pytest.raises(BpuError, match='whose head is a FCOSHead, but the config has a Deformable'):
        ArtifactDetector(detector, fixed_executable(metadata))


@pytest.mark.parametrize('outputs', [
    ['logits', 'boxes'], [dict(name='logits'), dict(name='boxes')]])
def test_an_artefact_of_version_0_1_is_one_of_deformable_detr(detector, new_stock, outputs):
    metadata = dict(outputs=outputs, postprocessing=dict(scores='sigmoid', max_per_img=10))
    logits, boxes = ArtifactDetector(detector, fixed_executable(metadata)).head_outputs(
        torch.zeros(3, 64, 64))
    assert logits.shape == (1, 1, QUERIES, 3) and boxes.shape == (1, 1, QUERIES, 4)
    with pytest.raises(BpuError, match='whose head is a detr, but the config has a RetinaHead'):
        ArtifactDetector(new_stock('retinanet'), fixed_executable(metadata))


def executable_of(model, image, scale=1 / 4096):
    """What a detector gives for an image, as integers of an executable, and (tree, floats)."""
    family = FAMILIES.of(model)
    with torch.no_grad():
        outputs = family.deployed(family.run(model, image))
    tree = family.output_tree(model, outputs)
    floats = dict(zip(leaves(tree), tensors_of(outputs), strict=True))
    levels = {name: torch.round(value / scale).to(torch.int32) for name, value in floats.items()}
    cfg = Config(dict(model=dict(data_preprocessor=dict(mean=None)),
                      bpu=dict(input_shape=(64, 96))))
    shape = (1, *image.shape[2:], image.shape[1])
    return FixedExecutable(
        inputs=[TensorSpec('image', shape, 'si8', 0.5)],
        # Not in the head's order: the tree gives it.
        outputs=[TensorSpec(name, tuple(value.shape), 'si32', scale)
                 for name, value in reversed(levels.items())],
        results=levels,
        metadata=json.loads(json.dumps(deploy_metadata(cfg, model, tree)))), floats


@pytest.mark.parametrize('kind', [
    'retinanet', 'fcos', 'yolox', 'yolov3', 'centernet', 'sabl', 'detr'])
def test_outputs_of_any_family_are_decoded_by_the_stock_head(new_stock, kind):
    model = new_stock(kind)
    image = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    executable, _ = executable_of(model, image)
    artefact = ArtifactDetector(model, executable)
    sample = DetDataSample(metainfo=dict(
        img_shape=(64, 96), batch_input_shape=(64, 96), scale_factor=(0.5, 2.0),
        ori_shape=(32, 192)))
    with torch.no_grad():
        found = artefact(image, [sample])[0].pred_instances
        # The same integers by hand: forward's nesting with every tensor replaced.
        family = FAMILIES.of(model)
        raw = map_tensors(family.run(model, image), lambda x: torch.round(x * 4096) / 4096)
        expected = model.bbox_head.predict_by_feat(
            *raw, batch_img_metas=[dict(sample.metainfo, border=(0, 0, 0, 0))], rescale=True)[0]
    assert len(found.scores) > 0
    for name in ('bboxes', 'scores', 'labels'):
        assert torch.equal(found[name], expected[name])


@pytest.mark.parametrize('channels', [1, 4])
def test_an_image_may_have_another_number_of_channels(new_stock, channels):
    model = new_stock('retinanet', backbone=dict(in_channels=channels),
                      data_preprocessor=dict(mean=None, std=None, bgr_to_rgb=False))
    executable, _ = executable_of(model, torch.zeros(1, channels, 64, 96))
    sample = DetDataSample(metainfo=dict(img_shape=(64, 96), scale_factor=(1.0, 1.0)))
    data = dict(inputs=[torch.full((channels, 64, 96), 7, dtype=torch.uint8)],
                data_samples=[sample])
    ArtifactDetector(model, executable).test_step(data)
    assert executable.given['image'].shape == (1, 64, 96, channels)
    assert executable.given['image'].unique().tolist() == [14]


def test_the_integer_model_is_evaluated_like_any_stage(trained, staged, tmp_path):
    runner = BPURunner.from_cfg(
        staged('qat', tmp_path / 'x_qat', load_from=str(trained / 'tiny_qat' / 'epoch_2.pth')))
    integer, _ = convert(export_networks(quantized_graphs(runner.model)))
    executable = Interpreter(program_from_module(integer))
    metrics = evaluate(staged('int', tmp_path / 'x_int'), executable)
    assert metrics['int/coco/bbox_mAP'] == metrics['coco/bbox_mAP']
    image = torch.randn(3, 64, 64, device=next(runner.model.parameters()).device)
    with torch.no_grad():
        expected = runner.model.eval()(image[None], example_samples(1, (64, 64)), mode='tensor')
    outputs = ArtifactDetector(runner.model, executable).head_outputs(image)
    for output, reference in zip(outputs, expected):
        assert output.shape == reference[-1:].shape
    # Boxes are in [0, 1]: a few steps of int16 and of rounding, not another box.
    assert (outputs[1] - expected[1][-1:]).abs().max() < 0.05
