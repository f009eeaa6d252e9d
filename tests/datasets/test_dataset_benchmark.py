"""benchmarks/dataset.py on few small images: what it reports, and what it refuses."""
import json
import operator
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
RELATIONS = {'>=': operator.ge, '>': operator.gt, '<=': operator.le, '<': operator.lt}
SIZE = 'database bytes / records in pages'


def run(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, CHECKOUT / 'benchmarks' / 'dataset.py', *map(str, arguments)],
        capture_output=True, text=True)


@pytest.fixture(scope='module')
def quick(tmp_path_factory):
    """What a quick run prints, and what it leaves of its temporary files."""
    folder = tmp_path_factory.mktemp('quick')
    done = run('--quick', '--many', 60, '--tmp', folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), list(folder.iterdir())


def test_every_requirement_says_its_value_and_whether_it_is_met(quick):
    report, _ = quick
    assert set(report['requirements']) == {
        SIZE, 'packing / copying with checksums', 'many: seconds to open',
        'many: build seconds, lmdb / files', 'many: build memory, lmdb / files',
        *(f'{workers} workers: lmdb / {other}'
          for workers in (0, 1, 2) for other in ('decoding', 'files'))}
    for name, requirement in report['requirements'].items():
        relation, bound = requirement['bound'].split()
        assert requirement['met'] is RELATIONS[relation](requirement['value'], float(bound)), name


def test_the_database_is_as_small_as_required(quick):
    assert quick[0]['requirements'][SIZE]['met']


@pytest.mark.parametrize('workers', ['0 workers', '1 workers', '2 workers'])
def test_rates_and_processor_times_of_all_contenders_are_reported(quick, workers):
    loading = quick[0]['loading'][workers]
    rates = loading['images_per_second']
    assert {'files', 'lmdb', 'lmdb_simplejpeg', 'decoding'} <= set(rates)
    for name, rate in rates.items():
        if rate is not None or name != 'lmdb_simplejpeg':
            assert rate > 0 and loading['cpu_ms_per_image'][name] >= 0
    for pair in ('lmdb / decoding', 'lmdb / files', 'decoding_again / decoding'):
        low, high = loading['ratios'][pair]['quartiles']
        assert 0 < low <= loading['ratios'][pair]['median'] <= high


def test_time_to_first_sample_is_reported(quick):
    assert all(quick[0]['first_sample_ms'][kind] > 0 for kind in ('files', 'lmdb'))


@pytest.mark.parametrize('kind', ['files', 'lmdb'])
def test_memory_of_a_worker_is_split_into_its_parts(quick, kind):
    memory = quick[0]['worker_memory']
    assert 'page cache' in memory['note']
    for size in ('1 x', '100 x'):
        row = memory['fork'][kind][size]
        assert row['private_mb'] >= row['private_without_database_mb'] > 0
        # What is private is a part of what is resident.
        assert row['private_mb'] < row['resident_anonymous_mb'] + row['resident_file_mb']


def test_the_cost_of_a_build_is_what_it_adds_to_the_process(quick):
    for cost in quick[0]['many']['build'].values():
        assert cost['images'] == 60 and cost['seconds'] > 0
        assert cost['added_mb'] == pytest.approx(cost['peak_rss_mb'] - cost['rss_before_mb'],
                                                 abs=0.2)


def test_temporary_files_are_removed(quick):
    assert quick[1] == []


@pytest.mark.parametrize('arguments, message', [
    (['--rounds', '0'], 'expected an integer from 1, found 0'),
    (['--data', 'nowhere'], 'nowhere is not a folder'),
    (['--data', CHECKOUT / 'docs'], 'which is not there'),
], ids=['rounds', 'no-folder', 'no-data-set'])
def test_bad_arguments_end_with_2(arguments, message):
    done = run(*arguments)
    assert done.returncode == 2 and message in done.stderr and done.stdout == ''
    assert 'Traceback' not in done.stderr
