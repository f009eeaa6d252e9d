"""Stock classes that lack what their own decoding asks for."""
import pytest

import mmdet_bpu.registration  # noqa: F401
from mmdet_bpu.families.stock_repairs import REPAIRS, apply_repairs


def test_registration_has_given_everything_that_was_absent():
    assert apply_repairs() == []


@pytest.mark.parametrize('repair', REPAIRS, ids=lambda repair: repair.cls)
def test_a_class_is_given_only_what_it_lacks(monkeypatch, repair):
    from mmdet.registry import MODELS
    cls = MODELS.get(repair.cls)
    monkeypatch.delattr(cls, repair.attribute)
    assert apply_repairs() == [repair]
    monkeypatch.setattr(cls, repair.attribute, 'of a later version')
    assert apply_repairs() == []
    assert getattr(cls, repair.attribute) == 'of a later version'


def test_without_it_ssd_cannot_predict(stock, picture, monkeypatch):
    from mmdet.models.dense_heads import SSDHead
    model = stock('ssd')
    monkeypatch.delattr(SSDHead, 'loss_cls')
    with pytest.raises(AttributeError, match='loss_cls'):
        model.bbox_head.predict_by_feat(*model.bbox_head(model.extract_feat(picture)),
                                        batch_img_metas=[dict(img_shape=(128, 160))])
