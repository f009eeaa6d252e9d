"""Odd pictures: every one is read as it is, or named and left out."""
import random
from pathlib import Path

import pytest

from mmdet_bpu.errors import BpuError

CASES = 100


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[2] / 'benchmarks')
        from fuzzing.pictures import Pictures
        kind = Pictures()
        kind.prepare(tmp_path_factory.mktemp('pictures'))
        yield kind


def test_no_picture_is_uncaught_or_changed(pictures):
    refused = 0
    for index in range(CASES):
        case = pictures.case(random.Random(f'0/pictures/{index}'))
        try:
            assert pictures.run(case) == 'equal', case.description
        except BpuError as error:
            refused += 1
            assert '\n' not in str(error), case.description
    assert 0.2 * CASES < refused < 0.8 * CASES
