"""Every kind of hostile input, a few hundred cases: refused or right, quickly and in little memory.

``benchmarks/fuzz.py`` runs any number.
"""
import pytest
from fuzzing.campaign import FAULTS, kind_names, load_kind, run_kind

CASES = 250
# Kinds of which a case is a process, or a pass of a network.
SLOW = dict(annotations=60, pictures=60, settings=120)


@pytest.mark.parametrize('name', kind_names())
def test_a_campaign_finds_nothing(name):
    cases = SLOW.get(name, CASES)
    tally = run_kind(load_kind(name), cases, seed=1)
    found = {fault: count for fault, count in tally.counts().items() if fault in FAULTS and count}
    assert not found, '\n'.join(tally.faults)
    assert tally.tried == cases == tally.refused + tally.equal
    assert tally.refused and tally.equal  # neither refuses everything nor touches nothing
