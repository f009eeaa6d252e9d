"""Marches, and the roofline that is fitted to the published latencies."""
from dataclasses import replace

import pytest

from mmdet_bpu.compiler.estimate import ESTIMATE_NOTE
from mmdet_bpu.compiler.march import MARCHES, NOMINAL_CLOCK_HZ, get_march
from mmdet_bpu.compiler.published import (PUBLISHED_NASH_E, fit_roofline, predicted_latency_ms)
from mmdet_bpu.errors import BpuError


def test_an_unknown_march_is_refused_with_the_known_ones():
    with pytest.raises(BpuError, match="'bayes'.*nash-e, nash-m, nash-p"):
        get_march('bayes')


def test_every_figure_says_where_it_comes_from():
    for march in MARCHES.values():
        assert set(march.figures()) == {
            'overhead_s', 'int8_macs_per_cycle', 'int16_slowdown', 'vector_bytes_per_cycle',
            'ddr_bytes_per_cycle', 'sram_bytes'}
        for figure in march.figures().values():
            assert figure.origin.split(':')[0] in ('fitted', 'scaled', 'assumed')
            assert figure.value > 0


def test_figures_of_nash_e_are_the_fit_to_the_published_table():
    overhead, operations, traffic = fit_roofline()
    march = get_march('nash-e')
    assert march.overhead_s.value == pytest.approx(overhead, rel=0.01)
    assert march.int8_macs_per_cycle.value == pytest.approx(
        operations / 2 / NOMINAL_CLOCK_HZ, rel=0.01)
    assert march.ddr_bytes_per_cycle.value == pytest.approx(traffic / NOMINAL_CLOCK_HZ, rel=0.01)


def test_the_fit_is_within_the_stated_error_of_every_published_latency():
    fit = fit_roofline()
    errors = {model.name: predicted_latency_ms(model, *fit) / model.latency_ms - 1
              for model in PUBLISHED_NASH_E}
    assert min(errors.values()) > -0.165 and max(errors.values()) < 0.215, errors


def test_a_model_left_out_of_the_fit_is_predicted_within_the_error_that_reports_state():
    errors = []
    for model in PUBLISHED_NASH_E:
        fit = fit_roofline(tuple(other for other in PUBLISHED_NASH_E if other is not model))
        errors.append(predicted_latency_ms(model, *fit) / model.latency_ms - 1)
    assert round(min(errors), 2) == -0.23 and round(max(errors), 2) == 0.27
    assert '-23 % to +27 %' in ESTIMATE_NOTE


def test_the_fit_recovers_a_known_roofline():
    made = tuple(replace(model, latency_ms=predicted_latency_ms(model, 2e-4, 1e13, 2e10))
                 for model in PUBLISHED_NASH_E)
    assert fit_roofline(made) == pytest.approx((2e-4, 1e13, 2e10))
