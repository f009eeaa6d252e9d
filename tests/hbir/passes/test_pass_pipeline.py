"""The order of the passes is checked before anything runs."""
import pytest

from mmdet_bpu.errors import BpuError
from mmdet_bpu.hbir.passes import PIPELINE, Pass, check_order, run_pipeline

RAN = []


def step(name, *requires):
    return Pass(name, lambda conversion: RAN.append(name), requires)


def test_the_pipeline_is_in_order():
    check_order(PIPELINE)


def test_a_wrong_order_is_refused_before_anything_runs():
    RAN.clear()
    passes = [step('first'), step('third', 'first', 'second'), step('second')]
    with pytest.raises(BpuError, match='pass third must run after second; the order is '
                                       'first -> third -> second'):
        run_pipeline(None, passes)
    assert RAN == []


def test_a_pass_runs_once():
    with pytest.raises(BpuError, match='pass first is in the pipeline twice'):
        check_order([step('first'), step('first')])


@pytest.mark.parametrize('name', [step.name for step in PIPELINE if step.requires])
def test_every_pass_of_the_pipeline_is_refused_too_early(name):
    moved = sorted(PIPELINE, key=lambda step: step.name != name)
    with pytest.raises(BpuError, match=f'pass {name} must run after'):
        check_order(moved)
