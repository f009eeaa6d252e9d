"""What each tensor of a tiny detector costs alone: measured, to first order, and by the command."""
import csv
import json

import pytest
import torch

from mmdet_bpu import apis
from mmdet_bpu.analysis.alone import Alone
from mmdet_bpu.analysis.detector_loss import as_in_training, loss_and_outputs
from mmdet_bpu.analysis.first_order import first_order_changes
from mmdet_bpu.engine.labelled_images import LabelledImages
from mmdet_bpu.errors import BpuError
from mmdet_bpu.quantization.scale_choice import weight_names


@pytest.fixture(scope='module')
def calibration(trained):
    return str(trained / 'tiny_calibration' / 'epoch_1.pth')


@pytest.fixture(scope='module')
def loaded(staged, calibration, tmp_path_factory):
    """(model, scales, first batch of labelled images)"""
    cfg = staged('calibration', tmp_path_factory.mktemp('loaded'))
    model, choice = apis.load_with_statistics(cfg, calibration)
    images = LabelledImages(cfg)
    return model, choice, next(images.batches(model, images.spread(4), 4))


def test_boxes_are_those_of_the_resized_picture(loaded):
    _, _, batch = loaded
    boxes = torch.cat([getattr(found, 'tensor', found) for found in (
        sample.gt_instances.bboxes for sample in batch['data_samples'])])
    assert batch['inputs'].shape[2:] == (64, 64) and len(boxes) == 4
    # Of rectangles that are white in one colour: the network's input is brightest inside.
    for image, sample, box in zip(batch['inputs'], batch['data_samples'], boxes.round().int()):
        left, top, right, bottom = box.tolist()
        colour = image[int(sample.gt_instances.labels[0])]
        inside = colour[top + 2:bottom - 2, left + 2:right - 2]
        assert inside.mean() > colour.mean() + 1


def test_the_loss_is_the_same_whatever_ran_before(loaded):
    model, _, batch = loaded
    with as_in_training(model), Alone(model).quantizing({}):
        first, outputs = loss_and_outputs(model, batch)
    torch.rand(7)
    with as_in_training(model), Alone(model).quantizing({}):
        again, _ = loss_and_outputs(model, batch)
    assert first == again and first > 0 and len(outputs) == 2
    assert not model.training


def test_first_order_is_what_fine_rounding_changes(loaded):
    """Against differences of the loss that is measured."""
    model, choice, batch = loaded
    alone = Alone(model)
    ways = ['backbone.relu/relu.0', 'encoder.layers.0.norms.0/layer_norm.mul.0']
    scales = {name: {'int16': choice.scale(name, 'int8') / 16} for name in ways}
    with as_in_training(model):
        changes = first_order_changes(model, alone, batch, scales, weight_names(model))
        with alone.quantizing({}):
            before, _ = loss_and_outputs(model, batch)
        for name in ways:
            with alone.quantizing({name: ('int16', scales[name]['int16'])}):
                after, _ = loss_and_outputs(model, batch)
            change = after - before
            assert change and changes[name, 'int16'] == pytest.approx(change, rel=0.25, abs=2e-6)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_command(tool_process, tiny_config, calibration, tmp_path):
    done = tool_process('analyze_quant.py', 'sensitivity', tiny_config, calibration, '--out', 's',
                        '--images', '4', '--first-order-images', '8', '--tensors',
                        'encoder.layers.0.[sf]*', cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads((tmp_path / 's' / 'sensitivity.json').read_text())
    assert (result['images'], result['first_order_images']) == (4, 8)
    assert result['labels'] == 'annotations'
    scores = [tensor['score'] for tensor in result['tensors']]
    assert scores == sorted(scores, reverse=True) and scores[0] > 0
    with open(tmp_path / 's' / 'sensitivity.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    assert [row['tensor'] for row in rows] == [row['tensor'] for row in result['tensors']]
    assert rows[0]['tensor'] in done.stdout
    assert rows[0]['tensor'] in (tmp_path / 's' / 'sensitivity.html').read_text()


def test_labels_where_there_are_none(staged, calibration, tmp_path):
    cfg = staged('calibration', tmp_path)
    names = enumerate(('red', 'green', 'blue'))
    unlabelled = dict(
        images=[dict(id=i, file_name=f'{i}.png', width=48, height=64) for i in range(4)],
        annotations=[], categories=[dict(id=i, name=name) for i, name in names])
    (tmp_path / 'none.json').write_text(json.dumps(unlabelled))
    cfg.val_dataloader.dataset.ann_file = str(tmp_path / 'none.json')
    result = apis.sensitivity(cfg, calibration, 2, 2, 'image')
    assert result.labels == 'detections of the float model'
    assert [tensor.tensor for tensor in result.tensors] == ['image'] and result.loss > 0


def test_what_cannot_be_analysed(staged, trained, calibration, tmp_path):
    def refused(checkpoint, message, **options):
        with pytest.raises(BpuError, match=message):
            apis.sensitivity(staged('calibration', tmp_path), str(checkpoint), **options)

    refused(trained / 'tiny_float' / 'epoch_2.pth', "is of stage 'float'; expected 'calibration'")
    refused(trained / 'tiny_qat' / 'epoch_2.pth', 'holds no statistics of a calibration')
    refused(calibration, 'parameter images: expected a positive number, found 0', images=0)
    refused(calibration, "parameter tensors='nose' matches nothing", images=2, tensors='nose')
    older = torch.load(calibration, weights_only=True)
    del older['bpu_statistics']
    torch.save(older, tmp_path / 'older.pth')
    refused(tmp_path / 'older.pth', 'holds no statistics of a calibration')
