"""Odd annotation files: each is refused in our words, or trained and evaluated as reported."""
import random

import pytest
from fuzzing.annotations import Annotations

from mmdet_bpu.errors import BpuError

CASES = 80


@pytest.fixture(scope='module')
def annotations(tmp_path_factory):
    kind = Annotations()
    kind.prepare(tmp_path_factory.mktemp('annotations'))
    return kind


def test_no_annotation_file_is_uncaught_or_misread(annotations):
    refused, tried = 0, set()
    for index in range(CASES):
        case = annotations.case(random.Random(f'0/annotations/{index}'))
        try:
            assert annotations.run(case) == 'equal', case.description
        except BpuError as error:
            refused += 1
            assert len(str(error)) < 2000, case.description
        tried.add(case.description)
    assert 0.2 * CASES < refused < 0.9 * CASES and len(tried) > 0.9 * CASES
