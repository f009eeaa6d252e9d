"""What a family restores from its deployed outputs decodes to the stock detector's own boxes."""
import pytest
import torch

from mmdet_bpu.families.base import FAMILIES
from mmdet_bpu.families.detector_path import example_samples
from mmdet_bpu.families.output_tree import leaves, tensors_of
from tests.stock_families import DENSE, DETRS, SHAPE

FEW = 5  # boxes; a comparison of none would hold for anything


@torch.no_grad()
def deployed(model, image):
    """(output tree, public name -> tensor) of a detector for an image."""
    family = FAMILIES.of(model)
    outputs = family.deployed(family.run(model, image))
    tree = family.output_tree(model, outputs)
    return tree, dict(zip(leaves(tree), tensors_of(outputs), strict=True))


def samples(**meta):
    """The sample of one image that was resized to 1/2 and 1/4 of its width and height."""
    sample = example_samples(1, SHAPE)[0]
    sample.set_metainfo(dict(scale_factor=(0.5, 0.25), ori_shape=(512, 320), **meta))
    return [sample]


def boxes_of(found):
    return [found.bboxes, found.scores, found.labels]


@pytest.mark.parametrize('kind', [*DENSE, *DETRS])
def test_restored_outputs_decode_to_the_boxes_of_stock_prediction(stock, picture, kind):
    model = stock(kind)
    family = FAMILIES.of(model)
    tree, outputs = deployed(model, picture)
    arguments = family.restore(tree, outputs)
    with torch.no_grad():
        # Stock prediction of CenterNet reads what its own pipeline padded.
        given = samples(border=(0, 0, 0, 0)) if kind == 'centernet' else samples()
        expected = model.predict(picture, given)[0].pred_instances
        found = family.predict(model.bbox_head, arguments, [samples()[0].metainfo])[0]
    assert len(expected.scores) >= FEW
    for ours, stocks in zip(boxes_of(found), boxes_of(expected), strict=True):
        assert torch.equal(ours, stocks)


LEVELS = {
    'retinanet': (['cls_scores', 'bbox_preds'], 5),
    'fcos': (['cls_scores', 'bbox_preds', 'score_factors'], 5),
    'yolox': (['cls_scores', 'bbox_preds', 'objectnesses'], 3),
    'rtmdet': (['cls_scores', 'bbox_preds'], 3),
    'yolov3': (['pred_maps'], 3),
    'centernet': (['center_heatmap_preds', 'wh_preds', 'offset_preds'], 1),
}


@pytest.mark.parametrize('kind', LEVELS)
def test_outputs_of_a_dense_head_are_named_as_its_decoding_names_them(stock, picture, kind):
    names, levels = LEVELS[kind]
    tree, outputs = deployed(stock(kind), picture)
    assert tree == [[f'{name}.{level}' for level in range(levels)] for name in names]
    assert all(tensor.dim() == 4 and len(tensor) == 1 for tensor in outputs.values())


def test_outputs_inside_a_level_keep_their_nesting(stock, picture):
    tree, _ = deployed(stock('sabl'), picture)
    assert tree[1][4] == ['bbox_preds.4.0', 'bbox_preds.4.1']


@pytest.mark.parametrize('kind', DETRS)
def test_of_a_detr_the_last_decoder_layer_is_deployed(stock, picture, kind):
    model = stock(kind)
    with torch.no_grad():
        raw = FAMILIES.of(model).run(model, picture)
    tree, outputs = deployed(model, picture)
    assert tree == ['cls_scores', 'bbox_preds'] and len(raw) == 2
    for layers, output in zip(raw, outputs.values()):
        assert len(layers) == 2
        assert torch.equal(output, layers[1]) and not torch.equal(output, layers[0])


@pytest.mark.parametrize('kind', DENSE)
def test_a_dense_head_deploys_all_that_its_decoding_takes(stock, picture, kind):
    model = stock(kind)
    family = FAMILIES.of(model)
    with torch.no_grad():
        raw = family.run(model, picture)
    assert [id(t) for t in tensors_of(family.deployed(raw))] == [id(t) for t in tensors_of(raw)]


def test_layers_in_a_list_are_taken_as_stacked_ones(stock):
    family = FAMILIES.of(stock('detr'))
    layers = torch.randn(3, 1, 20, 4)
    assert torch.equal(family.deployed((list(layers), layers))[0], layers[2])
    assert torch.equal(family.deployed((list(layers), layers))[1], layers[2])
