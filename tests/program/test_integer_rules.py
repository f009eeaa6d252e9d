"""Rules of integer operations, at their edges; all who ask get the same answer."""
import numpy as np
import pytest

from mmdet_bpu.errors import BpuError
from mmdet_bpu.kernels.registry import KERNELS
from mmdet_bpu.program.integer_rules import (multiplier_fault, padding_fault, product_fault,
                                             sum_fault, table_fault)
from mmdet_bpu.program.numerics import Operand, broadcast_pair


@pytest.mark.parametrize('value, right', [
    (0, True), (2**14, True), (2**15 - 1, True), (2**14 - 1, False), (2**15, False), (-1, False)])
def test_a_multiplier_has_fifteen_significant_bits(value, right):
    assert (multiplier_fault([2**14, value]) is None) == right
    if not right:
        assert f'{value} at index 1' in multiplier_fault([2**14, value])
        with pytest.raises(BpuError, match=f'multiplier {value} at index 0 is neither 0 nor in'):
            broadcast_pair([value], [3])


@pytest.mark.parametrize('left, right, fault', [
    ('si8', 'si8', False), ('si16', 'si8', False), ('si8', 'si16', False), ('si16', 'si16', True),
    ('int16', 'int16', True), ('int16', 'int8', False)])
def test_one_side_of_a_product_is_int8_by_either_name(left, right, fault):
    assert (product_fault(left, right) is not None) == fault


@pytest.mark.parametrize('dtype, bits', [('si8', 8), ('int8', 8), ('si16', 16), ('int16', 16)])
def test_the_longest_sum_is_the_one_that_int32_holds(dtype, bits):
    most = (2**31 - 1) // 2**(bits - 1)
    assert sum_fault(most, dtype) is None
    assert f'the sum of {most + 1} {dtype} values' in sum_fault(most + 1, dtype)
    assert f'at most {most} elements' in sum_fault(most + 1, dtype)


def test_a_kernel_refuses_the_sum_that_the_rule_refuses():
    attrs = dict(dims=[1], multiplier=[2**14], shift=[20], out_dtypes=['si8'])
    KERNELS['bpu.reduce_sum'].plan([Operand('si16', (1, 65535))], attrs)
    with pytest.raises(BpuError, match='the sum of 65536 si16 values does not fit int32'):
        KERNELS['bpu.reduce_sum'].plan([Operand('si16', (1, 65536))], attrs)


def test_paddings():
    assert padding_fault('zeros') is None and padding_fault('border') is None
    assert padding_fault('reflection') == 'padding is zeros or border, found reflection'


ONE = [-2**15], [10]
TWO = [-2**15, 0], [9, 9]


@pytest.mark.parametrize('dtype, entries, segments, reason', [
    ('si8', 256, (None, None), None),
    ('si8', 255, (None, None), '256 entries, found 255'),
    ('si8', 65, ONE, 'no segments'),
    ('si16', 65, ONE, None),
    ('si16', 129, TWO, None),
    ('si16', 256, (None, None), '1 to 64 segments'),
    ('si16', 64, ONE, '65 entries, found 64'),
    ('si16', 129, (TWO[0], [9]), 'each with a start and a shift, found 2 and 1'),
    ('si16', 65, ([-2**15], [11]), r'shifts must be in [0, 10]'),
    ('si16', 129, (TWO[0], [9, 8]), 'tile'),
    ('si16', 129, ([-2**15, 64], [9, 9]), 'tile'),
    ('si16', 64 * 65 + 1, (list(range(65)), [0] * 65), 'found 65 and 65'),
])
@pytest.mark.parametrize('kind', [list, np.asarray])
def test_tables(dtype, entries, segments, reason, kind):
    given = [None if part is None else kind(part) for part in segments]
    fault = table_fault(dtype, entries, *given)
    assert fault is None if reason is None else reason in fault
