"""The .hbm envelope: equal input, equal bytes; anything else is refused by name."""
import pytest

from mmdet_bpu.errors import BpuError
from mmdet_bpu.program.container import MAGIC, NOTICE, SECTIONS, read_bytes, seal, unseal

CONTENT = {name: (name.encode() + b'!') * 11 for name in SECTIONS}


@pytest.fixture
def sealed():
    return seal({'march': 'nash-e'}, CONTENT)


def test_sections_come_back_with_the_header(sealed):
    header, sections = unseal(sealed)
    assert sections == CONTENT
    assert header['march'] == 'nash-e' and header['notice'] == NOTICE


def test_equal_input_gives_equal_bytes(sealed):
    assert seal({'march': 'nash-e'}, dict(reversed(CONTENT.items()))) == sealed


def test_sections_start_at_multiples_of_64(sealed):
    assert all(sealed.index(CONTENT[name]) % 64 == 0 for name in SECTIONS)


def test_the_notice_says_where_it_runs_and_how_to_make_one_for_the_board(sealed):
    assert b'not on a board' in sealed and b'with the backend hbdk4' in sealed


@pytest.mark.parametrize('name', SECTIONS)
def test_one_flipped_bit_is_refused_and_names_the_section(sealed, name):
    place = sealed.index(CONTENT[name]) + 3
    altered = sealed[:place] + bytes([sealed[place] ^ 1]) + sealed[place + 1:]
    with pytest.raises(BpuError, match=f"section '{name}' is altered"):
        unseal(altered)


@pytest.mark.parametrize('length, where', [
    (0, 'not a .hbm'), (4, 'not a .hbm'), (20, 'truncated in the prefix'),
    (100, 'truncated in the header')])
def test_a_file_cut_in_front_is_refused(sealed, length, where):
    with pytest.raises(BpuError, match=where):
        unseal(sealed[:length])


@pytest.mark.parametrize('name', SECTIONS)
def test_a_file_cut_inside_a_section_names_it(sealed, name):
    with pytest.raises(BpuError, match=f"section '{name}' is truncated"):
        unseal(sealed[:sealed.index(CONTENT[name]) + 1])


def test_bytes_behind_the_end_are_refused(sealed):
    with pytest.raises(BpuError, match='altered behind its last section'):
        unseal(sealed + b'more')


def test_an_altered_header_is_refused(sealed):
    with pytest.raises(BpuError, match='header is altered'):
        unseal(sealed.replace(b'nash-e', b'nash-p'))


def test_every_single_altered_byte_is_noticed_or_is_padding(sealed):
    for place in range(len(sealed)):
        altered = sealed[:place] + bytes([sealed[place] ^ 0x40]) + sealed[place + 1:]
        try:
            assert unseal(altered)[1] == CONTENT and sealed[place] == 0
        except BpuError:
            pass


def test_a_foreign_file_is_told_from_a_broken_one():
    with pytest.raises(BpuError, match='vendor.*runs on a board'):
        unseal(b'PK\x03\x04' + bytes(100), 'model.hbm')


def test_a_newer_format_is_refused(sealed):
    newer = MAGIC + (3).to_bytes(4, 'little') + sealed[12:]
    with pytest.raises(BpuError, match='format version 3, this mmdet_bpu reads 1 and 2'):
        unseal(newer)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BpuError, match='absent.hbm: cannot be read'):
        read_bytes(tmp_path / 'absent.hbm')
