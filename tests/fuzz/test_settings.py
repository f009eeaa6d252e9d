"""Odd settings: every one is refused in our words or means what it says."""
import random
from pathlib import Path

import pytest

from mmdet_bpu.errors import BpuError

CASES = 120


@pytest.fixture(scope='module')
def settings(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[2] / 'benchmarks')
        from fuzzing.settings import Settings
        kind = Settings()
        kind.prepare(tmp_path_factory.mktemp('settings'))
        yield kind


def test_no_setting_is_uncaught_or_changed(settings):
    refused, tried = 0, []
    for index in range(CASES):
        case = settings.case(random.Random(f'0/settings/{index}'))
        try:
            assert settings.run(case) == 'equal', case.description
        except BpuError as error:
            refused += 1
            assert '\n' not in str(error), case.description
            assert case.data[3] is not True, f'{case.description}: {error}'
        tried.append(case.description)
    assert 0.3 * CASES < refused < 0.8 * CASES and len(set(tried)) > 0.8 * CASES
