"""Class names of a config, whatever its heads look like."""
import pytest
from mmengine.config import Config
from mmengine.hub import get_config

from mmdet_bpu.families.class_names import class_names


@pytest.mark.parametrize('config, count', [
    ('retinanet/retinanet_r18_fpn_1x_coco.py', 80),
    ('pascal_voc/retinanet_r50_fpn_1x_voc0712.py', 20),
    ('rpn/rpn_r50_fpn_1x_coco.py', 0),  # one class of its own: not those of the dataset
    ('maskformer/maskformer_r50_ms-16xb1-75e_coco.py', 133)])
def test_names_of_stock_configs(config, count):
    assert len(class_names(get_config(f'mmdet::{config}'))) == count


@pytest.mark.parametrize('model, names', [
    (dict(bbox_head=dict(num_classes=2)), ['a', 'b']),
    (dict(bbox_head=dict(num_classes=3)), []),
    (dict(bbox_head=[dict(num_classes=2), dict(num_classes=2)]), ['a', 'b']),
    (dict(bbox_head=None), ['a', 'b']),
    (dict(), ['a', 'b'])])
def test_names_are_those_of_the_data_if_the_heads_have_as_many_classes(model, names):
    cfg = Config(dict(model=model, test_dataloader=dict(
        dataset=dict(metainfo=dict(classes=('a', 'b'))))))
    assert class_names(cfg) == names
