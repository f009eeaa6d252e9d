"""The campaign counts what it should: kinds that do wrong on purpose, each in its own way."""
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fuzzing.campaign import FAULTS, kind_names, load_kind, run_kind
from fuzzing.case import Case
from fuzzing.worker import case_seed

from mmdet_bpu.errors import BpuError

ROOT = Path(__file__).parents[2]
GIB = 1 << 30


class Toy:
    """Answers by a function of the case's number, which counts up from 0 as cases are run."""
    name = 'toy'

    def __init__(self, answer):
        self.answer = answer

    def prepare(self, folder):
        (folder / 'seed').write_text('seed')
        self.seed = folder / 'seed'

    def case(self, rng):
        return Case(rng.randrange(10), 'a digit')

    def run(self, case):
        assert self.seed.read_text() == 'seed'
        return self.answer(case.data)


def counts(answer, cases=20, **options):
    tally = run_kind(Toy(answer), cases, seed=5, **options)
    return {name: value for name, value in tally.counts().items() if value}, tally


def share(of, cases=20):
    """How many of the first cases of seed 5 draw a digit of some."""
    return sum(Toy(None).case(case_seed(5, 'toy', index)).data in of for index in range(cases))


def refuse(_):
    raise BpuError('no')


def test_each_answer_is_counted():
    found, _ = counts(lambda digit: 'equal' if digit < 5 else refuse(digit))
    assert found == dict(tried=20, equal=share(range(5)), refused=share(range(5, 10)))


def test_an_exception_is_uncaught_and_named_with_its_place():
    found, tally = counts(lambda digit: [][digit] if digit == 3 else 'equal', cases=50)
    assert found == dict(tried=50, uncaught=share([3], 50), equal=50 - share([3], 50))
    assert 'IndexError at test_campaign.py' in tally.faults[0] and 'a digit' in tally.faults[0]


def test_even_a_system_exit_is_uncaught():
    assert counts(lambda digit: sys.exit(0), cases=3)[0] == dict(tried=3, uncaught=3)


def test_another_output_and_another_answer_are_told():
    assert counts(lambda digit: 'different', cases=3)[0] == dict(tried=3, different=3)
    assert counts(lambda digit: None, cases=3)[0] == dict(tried=3, uncaught=3)


def test_a_dead_process_costs_one_case_and_the_others_are_run():
    found, tally = counts(lambda digit: os.kill(os.getpid(), signal.SIGSEGV)
                          if digit == 3 else 'equal', cases=50)
    assert found == dict(tried=50, crashed=share([3], 50), equal=50 - share([3], 50))
    assert f'ended by {-signal.SIGSEGV}' in tally.faults[0]


def test_a_slow_case_is_counted_beside_its_answer():
    found, _ = counts(lambda digit: time.sleep(0.2 if digit == 3 else 0) or 'equal', cases=20,
                      slow_seconds=0.1)
    assert found == dict(tried=20, equal=20, slow=share([3]))


def test_a_case_that_does_not_end_is_stopped():
    found, tally = counts(lambda digit: time.sleep(60 if digit == 3 else 0) or 'equal', cases=10,
                          slow_seconds=0.1, stop_seconds=0.5)
    assert share([3], 10) and found == dict(tried=10, slow=share([3], 10),
                                            equal=10 - share([3], 10))
    assert 'stopped' in tally.faults[0]


def test_memory_that_is_used_is_seen():
    found, _ = counts(lambda digit: 'equal' if bytearray(GIB + (64 << 20)) else '', cases=1)
    assert found == dict(tried=1, equal=1, memory=1)


def test_memory_that_cannot_be_had_is_seen():
    assert counts(lambda digit: bytes(1 << 50), cases=1)[0] == dict(tried=1, uncaught=1, memory=1)


def test_memory_within_the_stated_budget_is_no_fault(monkeypatch):
    monkeypatch.setattr(Toy, 'budget_bytes', GIB, raising=False)
    found, _ = counts(lambda digit: 'equal' if bytearray(GIB + (64 << 20)) else '', cases=1)
    assert found == dict(tried=1, equal=1)


def test_the_same_seed_gives_the_same_cases_from_wherever_it_starts():
    toy = Toy(None)
    seen = [toy.case(case_seed(1, 'toy', index)).data for index in range(30)]
    assert seen[10:] == [toy.case(case_seed(1, 'toy', index)).data for index in range(10, 30)]
    assert len(set(seen)) > 5
    assert seen != [toy.case(case_seed(2, 'toy', index)).data for index in range(30)]


def test_a_kind_is_a_file_with_a_class_of_its_name(tmp_path):
    (tmp_path / 'toy.py').write_text("class Any:\n    name = 'toy'\n\n    size = 1\n")
    (tmp_path / 'parts.py').write_text("class Part:\n    name = 'other'\n")
    assert kind_names(tmp_path) == ['toy']
    assert load_kind('toy', tmp_path).size == 1


def test_the_command_ends_with_json_and_with_0_where_nothing_is_wrong():
    done = subprocess.run([sys.executable, '-W', 'ignore', str(ROOT / 'benchmarks' / 'fuzz.py'),
                           '--cases', '20', '--seed', '3', '--only', 'hbm'], capture_output=True,
                          text=True, timeout=300, env=dict(os.environ, OMP_NUM_THREADS='1'))
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    last = json.loads(done.stdout.splitlines()[-1])
    assert set(last) == {'cases', *FAULTS, 'by_kind'} and last['cases'] == 20
    kind = last['by_kind']['hbm']
    assert kind['tried'] == 20 == kind['refused'] + kind['equal']


@pytest.mark.parametrize('arguments', [['--only', 'nothing'], ['--cases', 'many']])
def test_a_wrong_argument_ends_with_2(arguments):
    done = subprocess.run([sys.executable, str(ROOT / 'benchmarks' / 'fuzz.py'), *arguments],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and 'usage' in done.stderr
