"""Corner heads: maps of the last hourglass."""
import torch

from mmdet_bpu.families.base import FAMILIES
from mmdet_bpu.families.detector_path import example_samples
from mmdet_bpu.families.output_tree import leaves, tensors_of

HOURGLASS = dict(downsample_times=2, stage_channels=[16, 16, 16], stage_blocks=[1, 1, 1],
                 feat_channel=16)


def test_the_last_hourglass_is_deployed_and_decodes_as_all_of_them(new_stock):
    model = new_stock('cornernet', backbone=HOURGLASS, bbox_head=dict(in_channels=16))
    family = FAMILIES.of(model)
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        raw = family.run(model, image)
        outputs = family.deployed(raw)
        tree = family.output_tree(model, outputs)
        assert [len(maps) for maps in raw] == [2] * 6
        assert tree[:2] == [['tl_heats.0'], ['br_heats.0']] and len(tree) == 6
        restored = family.restore(tree, dict(zip(leaves(tree), tensors_of(outputs), strict=True)))
        metas = [sample.metainfo for sample in example_samples(1, (64, 64))]
        expected = model.bbox_head.predict_by_feat(*raw, batch_img_metas=metas, rescale=True)[0]
        found = family.predict(model.bbox_head, restored, metas)[0]
    assert len(found.scores) >= 5
    assert torch.equal(found.bboxes, expected.bboxes)
    assert torch.equal(found.scores, expected.scores)
