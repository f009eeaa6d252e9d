"""Norms that are exchanged for plain ones: the same function, parameters, names and sharing."""
import copy

import pytest
import torch
import torch.distributed as dist
from mmcv.ops import SyncBatchNorm
from mmdet.models.layers import FrozenBatchNorm2d
from mmengine.utils.dl_utils.parrots_wrapper import SyncBatchNorm as ConfiguredNorm
from torch import nn

from mmdet_bpu.models.plain_norms import SYNCHRONIZED, FrozenNorm, PlainNorm, open_norms

IMAGE = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=SYNCHRONIZED, ids=['torch', 'mmcv'])
def synchronized(request, monkeypatch):
    """A synchronised norm of 4 channels."""
    if request.param is SyncBatchNorm:  # it asks for the size of its group when it is built
        monkeypatch.setattr(dist, 'get_world_size', lambda group=None: 1)
    norm = request.param(4, eps=1e-3, momentum=0.03)
    with torch.no_grad():
        for tensor in (norm.running_mean, norm.weight, norm.bias):
            tensor.normal_()
        norm.running_var.uniform_(0.5, 2)
    return norm


def normalized(norm):
    """The function by its formula, in float64."""
    mean, variance, weight, bias = (tensor.detach().double()[:, None, None] for tensor in (
        norm.running_mean, norm.running_var, norm.weight, norm.bias))
    return ((IMAGE - mean) / (variance + norm.eps).sqrt() * weight + bias).float()


def test_synchronised_norms_keep_parameters_names_and_who_shares_them(synchronized):
    model = nn.ModuleDict(dict(a=nn.Sequential(synchronized, nn.ReLU()), b=synchronized)).eval()
    before, parameters = copy.deepcopy(model.state_dict()), list(model.parameters())
    expected = normalized(synchronized)
    open_norms(model)
    assert type(model.b) is PlainNorm and model.a[0] is model.b
    assert (model.b.eps, model.b.momentum, model.b.training) == (1e-3, 0.03, False)
    assert [id(p) for p in model.parameters()] == [id(p) for p in parameters]
    after = model.state_dict()
    assert list(after) == list(before) and all(torch.equal(after[k], before[k]) for k in before)
    torch.testing.assert_close(model.b(IMAGE), expected, atol=1e-5, rtol=1e-5)


def test_what_configs_call_syncbn_is_exchanged():
    """``norm_cfg=dict(type='SyncBN')`` gives mmengine's subclass of torch's."""
    model = nn.ModuleDict(dict(norm=ConfiguredNorm(4)))
    open_norms(model, SYNCHRONIZED)
    assert type(model.norm) is PlainNorm


def test_a_norm_in_training_stays_in_training(synchronized):
    model = nn.ModuleDict(dict(norm=synchronized)).train()
    open_norms(model)
    mean = model.norm.running_mean.clone()
    model.norm(IMAGE)
    assert model.norm.training and not torch.equal(model.norm.running_mean, mean)


def test_a_frozen_norm_never_trains_nor_learns():
    frozen = FrozenBatchNorm2d(4)
    frozen.running_mean.normal_(), frozen.weight.normal_()
    expected = normalized(frozen)
    model = nn.ModuleDict(dict(norm=frozen))
    open_norms(model)
    model.train()
    assert type(model.norm) is FrozenNorm and not model.norm.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    torch.testing.assert_close(model.norm(IMAGE), expected, atol=1e-5, rtol=1e-5)


def test_only_the_kinds_that_are_asked_for_are_exchanged():
    """A float checkpoint of a frozen norm has no ``num_batches_tracked``."""
    model = nn.ModuleDict(dict(frozen=FrozenBatchNorm2d(2), synchronized=nn.SyncBatchNorm(2)))
    open_norms(model, SYNCHRONIZED)
    assert type(model.frozen) is FrozenBatchNorm2d and type(model.synchronized) is PlainNorm
