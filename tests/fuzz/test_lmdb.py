"""Databases that lie: each is refused in our words, or read as what its records say."""
import random

import pytest
from fuzzing.lmdb import Lmdb

from mmdet_bpu.errors import BpuError

CASES = 200


@pytest.fixture(scope='module')
def databases(tmp_path_factory):
    kind = Lmdb()
    kind.prepare(tmp_path_factory.mktemp('lmdb'))
    return kind


def test_no_database_is_uncaught_or_misread(databases):
    refused, tried = 0, set()
    for index in range(CASES):
        case = databases.case(random.Random(f'0/lmdb/{index}'))
        try:
            assert databases.run(case) == 'equal', case.description
        except BpuError as error:
            refused += 1
            assert len(str(error)) < 2000, case.description
        tried.add(case.description)
    assert 0.4 * CASES < refused < 0.95 * CASES and len(tried) > 0.9 * CASES
