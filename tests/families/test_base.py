"""Families are found by the class of a detector's head."""
import pkgutil
import sys

import pytest
import torch
from torch import nn

import mmdet_bpu.families
from mmdet_bpu.errors import BpuError
from mmdet_bpu.families.base import FAMILIES, GENERIC, Families, Family, argument_names


class RetinaHead(nn.Module):
    """A stock head's name."""


class Derived(RetinaHead):
    """A user's head."""


class Nearer(RetinaHead):
    """A user's head with a family of its own."""


def test_a_head_belongs_to_the_family_of_its_nearest_class():
    families = Families()

    @families.register('RetinaHead', 'ATSSHead')
    class Anchors(Family):
        name = 'anchors'

    @families.register('Nearer')
    class Mine(Family):
        name = 'mine'

    assert families.of_head(RetinaHead).name == families.of_head(Derived).name == 'anchors'
    assert families.of_head(Nearer).name == 'mine'
    assert families.of_head(nn.Identity) is None
    assert families.registered(Nearer) and not families.registered(Derived)


def test_a_head_has_one_family():
    families = Families()
    families.register('RetinaHead')(type('First', (Family, ), {}))
    with pytest.raises(AssertionError, match='RetinaHead belongs to First already, not to Second'):
        families.register('RetinaHead')(type('Second', (Family, ), {}))


def test_a_head_that_nobody_registered_has_a_family_too(toy):
    model = toy(lambda self, image: (image + 1, [image * 2]))
    family = FAMILIES.of(model)
    assert family is GENERIC
    image = torch.ones(1, 3, 2, 2)
    outputs = family.deployed(family.run(model, image))
    tree = family.output_tree(model, outputs)
    assert tree == ['output_0', ['output_1.0']]
    restored = family.restore(tree, {'output_0': outputs[0], 'output_1.0': outputs[1][0]})
    assert restored[0] is outputs[0] and restored[1][0] is outputs[1][0]


@pytest.mark.parametrize('model', [nn.Linear(1, 1), nn.Module()])
def test_what_is_no_detector_is_refused(model):
    with pytest.raises(BpuError, match='extract_feat and bbox_head, found (Linear|Module)'):
        FAMILIES.of(model)


def test_arguments_of_a_decoding_end_where_the_metadata_begin():

    class Head(nn.Module):

        def predict_by_feat(self, heats, boxes, batch_img_metas=None, rescale=False):
            """Decode."""

    assert argument_names(Head()) == ('heats', 'boxes')
    assert argument_names(nn.Identity()) == ()


def test_every_file_of_the_package_registers_when_the_package_is_imported():
    names = [module.name for module in pkgutil.iter_modules(mmdet_bpu.families.__path__)]
    assert 'detr' in names
    assert all(f'mmdet_bpu.families.{name}' in sys.modules for name in names)
