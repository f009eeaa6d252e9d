"""Files appear together or not at all."""
import pytest

from mmdet_bpu.errors import BpuError
from mmdet_bpu.output_folder import staged_folder


def test_files_appear_when_the_block_ends_and_others_stay(tmp_path):
    out = tmp_path / 'out'
    (out / 'sub').mkdir(parents=True)
    (out / 'old').write_text('old')
    (out / 'a').write_text('before')
    with staged_folder(out) as folder:
        (folder / 'a').write_text('after')
        (folder / 'sub').mkdir()
        (folder / 'sub' / 'b').write_text('b')
        assert (out / 'a').read_text() == 'before'
    files = [path for path in out.rglob('*') if path.is_file()]
    found = {str(path.relative_to(out)): path.read_text() for path in files}
    assert found == {'old': 'old', 'a': 'after', 'sub/b': 'b'}
    assert sorted(path.name for path in out.iterdir()) == ['a', 'old', 'sub']


@pytest.mark.parametrize('existed', [True, False])
def test_after_an_error_the_folder_is_as_it_was(tmp_path, existed):
    out = tmp_path / 'out'
    if existed:
        out.mkdir()
    with pytest.raises(KeyError), staged_folder(out) as folder:
        (folder / 'a').write_text('half')
        raise KeyError
    assert out.exists() == existed
    assert not existed or not list(out.iterdir())


def test_a_file_in_the_folders_place_is_refused(tmp_path):
    (tmp_path / 'out').write_text('')
    with pytest.raises(BpuError, match='expected a folder, found a file'):
        with staged_folder(tmp_path / 'out'):
            pass
