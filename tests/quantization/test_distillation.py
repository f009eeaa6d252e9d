"""What a student loses against its teacher, and that agreement loses nothing."""
import copy
import math

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData

from mmdet_bpu.errors import BpuError
from mmdet_bpu.families.base import FAMILIES
from mmdet_bpu.families.detector_path import example_samples
from mmdet_bpu.families.meanings import Meaning
from mmdet_bpu.quantization import finish_calibration, prepare, set_quant_state
from mmdet_bpu.quantization.distillation import divergences
from mmdet_bpu.quantization.distillation.losses import deployed_rows
from mmdet_bpu.quantization.distillation.reached import freeze_unreached
from mmdet_bpu.quantization.distillation.selections import at, shared_rows
from mmdet_bpu.quantization.distillation.supervision import Supervision, matching_modules

SHAPE = (64, 96)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_bernoulli_divergence_by_its_definition():
    ours, theirs = drawn(2, 5, 3), drawn(2, 5, 3, seed=1)
    weight = (drawn(2, 5, seed=2) > 0).float()
    p, q = (1 / (1 + np.exp(-x.double().numpy())) for x in (theirs, ours))
    each = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    mass = max((p.max(-1) * weight.numpy()).sum(), 1)
    expected = (each * weight.numpy()[..., None]).sum() / mass
    np.testing.assert_allclose(divergences.bernoulli(ours, theirs, weight), expected, rtol=1e-5)


def test_categorical_divergence_by_its_definition():
    ours, theirs = drawn(2, 5, 4), drawn(2, 5, 4, seed=1)
    p, q = (np.exp(x.double().numpy()) for x in (theirs, ours))
    p, q = (x / x.sum(-1, keepdims=True) for x in (p, q))
    expected = (p * np.log(p / q)).sum() / (1 - p[..., -1]).sum()
    weight = torch.ones(2, 5)
    np.testing.assert_allclose(divergences.categorical(ours, theirs, weight), expected, rtol=1e-5)


def test_boxes_of_sure_positions_count_and_units_do_not():
    theirs = drawn(1, 4, 4)
    ours, sure = theirs.clone(), torch.tensor([[1.0, 0.0, 0.5, 1.0]])
    ours[0, 1] += 7
    assert divergences.boxes(ours, theirs, sure) == 0
    ours[0, 0] += 0.5
    loss = divergences.boxes(ours, theirs, sure)
    ours[0, 0] -= 0.5
    ours[0, 2] += 0.5
    np.testing.assert_allclose(divergences.boxes(ours, theirs, sure), loss / 2, rtol=1e-5)
    np.testing.assert_allclose(divergences.boxes(8 * ours, 8 * theirs, sure), loss / 2, rtol=1e-5)


def test_values_lose_noise_over_signal_and_infinite_ones_nothing():
    theirs, noise = drawn(1000), drawn(1000, seed=1)
    found = divergences.values(theirs + 0.1 * noise, theirs)
    np.testing.assert_allclose(found, 0.01 * noise.square().sum()
                               / (theirs - theirs.mean()).square().sum(), rtol=1e-4)
    theirs[3] = math.inf
    assert torch.isfinite(divergences.values(theirs + 1, theirs))
    assert torch.isfinite(divergences.values(torch.ones(3), torch.ones(3)))


def test_values_of_a_position_come_last():
    x = drawn(2, 6, 3, 4)
    found = divergences.by_position(x, 3)
    assert found.shape == (2, 2, 3, 4, 3)
    assert torch.equal(found[1, 1, 2, 3], x[1, 3:, 2, 3])
    queries = x[0]
    assert divergences.by_position(queries, 4) is queries


def test_rows_are_compared_position_by_position():
    rows, others = torch.tensor([[5, 2, 9], [1, 2, 3]]), torch.tensor([[2, 7, 5], [3, 1, 2]])
    shared, places = shared_rows(rows, others)
    assert shared.tolist() == [[True, True, False], [True, True, True]]
    read = at(others.unsqueeze(-1), places).squeeze(-1)
    assert torch.equal(read[shared], rows[shared])


def test_what_training_adds_comes_before_what_is_deployed():
    x = drawn(2, 7, 3)
    assert torch.equal(deployed_rows(x, x[:, 2:], 'x'), x[:, 2:])
    with pytest.raises(BpuError, match=r'x has shape \(2, 7, 3\) in training and \(2, 8, 3\)'):
        deployed_rows(x, drawn(2, 8, 3), 'x')


@pytest.fixture(scope='module', params=['', '-refine-twostage'], ids=['one stage', 'two stages'])
def taught(request, small_detector):
    """A calibrated student in training mode, its float teacher, images."""
    teacher = small_detector(request.param)
    student = prepare(copy.deepcopy(teacher), dict(input_shape=SHAPE))
    images = drawn(2, 3, *SHAPE)
    set_quant_state(student, 'observe')
    with torch.no_grad():
        student(images, example_samples(2, SHAPE), mode='tensor')
    finish_calibration(student)
    set_quant_state(student, 'quantize')
    return student, teacher, images


def losses(student, teacher, images, labels=False, outputs=1.0, features=0.0, modules=(), samples=None):
    student.quant.supervision = Supervision(student, teacher, labels, outputs, features,
                                            matching_modules(student, modules))
    try:
        return student.train()(images, samples, mode='loss')
    finally:
        student.quant.supervision = None
        student.eval()


def test_without_quantizers_a_student_is_its_teacher(taught):
    student, teacher, images = taught
    set_quant_state(student, 'off')
    found = losses(student, teacher, images, features=1.0, modules=['neck', 'backbone.layer?'])
    set_quant_state(student, 'quantize')
    rounded = losses(student, teacher, images, features=1.0, modules=['neck', 'backbone.layer?'])
    names = {'cls_scores', 'bbox_preds', 'features'}
    if rounded.keys() - {f'loss_distill_{name}' for name in names}:
        names |= {'selected_scores', 'selected_boxes'}
    assert set(found) == set(rounded) == {f'loss_distill_{name}' for name in names}
    for name, loss in found.items():  # norms folded: the last bits differ
        assert loss < 2e-3 and loss < rounded[name] / 3, name


def test_no_label_and_no_sample_is_needed_and_modes_are_restored(taught):
    student, teacher, images = taught
    student.train()
    student.backbone.eval()
    before = {name: module.training for name, module in student.named_modules()}
    student.quant.supervision = Supervision(student, teacher, False, 1.0, 0.0, ())
    found = student(images, None, mode='loss')
    student.quant.supervision = None
    assert {name: module.training for name, module in student.named_modules()} == before
    sum(found.values()).backward()
    of_first = student.backbone.conv1.weight.grad
    assert of_first is not None and torch.isfinite(of_first).all() and of_first.abs().sum() > 0
    student.zero_grad()
    assert not any(p.requires_grad or p.grad is not None for p in teacher.parameters())


def test_labels_and_teacher_teach_together(taught):
    student, teacher, images = taught
    samples = example_samples(2, SHAPE)
    for sample in samples:
        sample.gt_instances = InstanceData(bboxes=torch.tensor([[8.0, 8.0, 40.0, 50.0]]),
                                           labels=torch.tensor([1]))
    alone = student.train()(images, samples, mode='loss')
    both = losses(student, teacher, images, True, samples=samples)
    assert set(alone) < set(both)
    for name in alone:
        assert torch.equal(both[name], alone[name]), name
    apart = losses(student, teacher, images)
    for name in set(both) - set(alone):  # the toy has no dropout: both see the same outputs
        np.testing.assert_allclose(both[name].detach(), apart[name].detach(), rtol=1e-5)


def test_copies_share_the_teacher(taught):
    student, teacher, _ = taught
    student.quant.supervision = Supervision(student, teacher, False, 1.0, 0.0, ())
    keys = list(student.state_dict())
    twin = copy.deepcopy(student)
    student.quant.supervision, supervision = None, twin.quant.supervision
    assert supervision.teacher is teacher and list(student.state_dict()) == keys


def test_what_nothing_is_learned_for_stays_and_nothing_else(taught):
    student = copy.deepcopy(taught[0])
    student.add_module('for_training_alone', torch.nn.Linear(2, 2))
    state = student.quant.state
    unreached = freeze_unreached(student)
    assert student.quant.state is state
    assert set(unreached) == {'for_training_alone.weight', 'for_training_alone.bias'}
    for name, parameter in student.named_parameters():
        assert parameter.requires_grad != (name in unreached) and parameter.grad is None


def test_a_glob_that_matches_nothing_is_refused(taught):
    with pytest.raises(BpuError, match="distill.modules: no module of .* is called 'nek'"):
        matching_modules(taught[0], ['neck', 'nek'])
    assert 'quant' not in str(matching_modules(taught[0], ['*']))


def test_outputs_mean_what_their_heads_make(taught):
    model = taught[0]
    assert FAMILIES.of(model).meanings(model) == dict(cls_scores=Meaning.SIGMOID,
                                                      bbox_preds=Meaning.BOXES)
