"""Files appear whole, and together or not at all."""
import errno
import json
import os
import stat

import pytest

from mmdet_bpu.errors import BpuError
from mmdet_bpu.output_folder import (atomic_file, require_file, require_folder, staged_folder,
                                     write_atomically, write_json)


def content(folder):
    """Every name under a folder -> text of the file, None for a folder."""
    return {str(path.relative_to(folder)): path.read_text() if path.is_file() else None
            for path in folder.rglob('*')}


def write_ab(folder):
    for name in 'ab':
        (folder / name).write_text('after')


def failing_at(monkeypatch, name, wrong, error=errno.EACCES):
    """Let ``os.<name>`` fail where ``wrong`` says so of its two paths."""
    right = getattr(os, name)

    def fail(source, target, *rest):
        if wrong(str(source), str(target)):
            raise OSError(error, os.strerror(error), str(source), None, str(target))
        return right(source, target, *rest)

    monkeypatch.setattr(os, name, fail)


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
    assert content(out) == {'old': 'old', 'a': 'after', 'sub': None, 'sub/b': 'b'}


def test_a_new_folder_appears_as_a_whole(tmp_path):
    out = tmp_path / 'new' / 'out'
    with staged_folder(out) as folder:
        write_ab(folder)
        assert not out.exists()
    assert content(tmp_path) == {'new': None, 'new/out': None, 'new/out/a': 'after',
                                 'new/out/b': 'after'}
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(out.stat().st_mode) == 0o777 & ~umask


@pytest.mark.parametrize('existed', [True, False])
def test_after_an_error_the_folder_is_as_it_was(tmp_path, existed):
    out = tmp_path / 'new' / 'out'
    if existed:
        out.mkdir(parents=True)
    before = content(tmp_path)
    with pytest.raises(KeyError), staged_folder(out) as folder:
        (folder / 'a').write_text('half')
        raise KeyError
    assert content(tmp_path) == before


@pytest.mark.parametrize('unmovable', ['a', 'b', 'sub/c'])
@pytest.mark.parametrize('moment', ['the earlier file goes', 'the new file comes'])
def test_where_one_file_cannot_be_moved_none_is(tmp_path, monkeypatch, unmovable, moment):
    out = tmp_path / 'out'
    (out / 'sub').mkdir(parents=True)
    for name in ('a', 'b', 'sub/c', 'other'):
        (out / name).write_text('before')
    before = content(out)
    place = str(out / unmovable)
    failing_at(monkeypatch, 'replace', lambda source, target: place == (
        source if moment == 'the earlier file goes' else target) and '/old/' not in source)
    with pytest.raises(BpuError, match=f'parameter out_dir: {out} cannot be written'):
        with staged_folder(out) as folder:
            write_ab(folder)
            (folder / 'sub').mkdir()
            (folder / 'sub' / 'c').write_text('after')
            (folder / 'deep' / 'er').mkdir(parents=True)
            (folder / 'deep' / 'er' / 'd').write_text('after')
    assert content(out) == before


def test_ctrl_c_during_the_moves_takes_them_back(tmp_path, monkeypatch):
    (tmp_path / 'a').write_text('before')
    right, calls = os.replace, []

    def interrupted(source, target):
        calls.append(target)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return right(source, target)

    monkeypatch.setattr(os, 'replace', interrupted)
    with pytest.raises(KeyboardInterrupt), staged_folder(tmp_path) as folder:
        write_ab(folder)
    assert content(tmp_path) == {'a': 'before'}


def test_what_cannot_be_taken_back_is_kept_and_its_place_said(tmp_path, monkeypatch):
    (tmp_path / 'a').write_text('before')
    failing_at(monkeypatch, 'replace', lambda source, target: (
        target == str(tmp_path / 'b') or source.endswith('old/a')))
    with pytest.raises(BpuError, match='could not be moved back.*earlier files are in ') as caught:
        with staged_folder(tmp_path) as folder:
            write_ab(folder)
    kept = str(caught.value).rpartition(' in ')[2]
    assert content(tmp_path)[os.path.relpath(kept, tmp_path) + '/a'] == 'before'


def test_a_whole_folder_that_cannot_get_its_name_leaves_nothing(tmp_path, monkeypatch):
    failing_at(monkeypatch, 'rename', lambda source, target: True)
    with pytest.raises(BpuError, match='cannot be written .*Permission denied'):
        with staged_folder(tmp_path / 'new' / 'out') as folder:
            write_ab(folder)
    assert content(tmp_path) == {}


def test_a_file_in_the_folders_place_is_refused(tmp_path):
    (tmp_path / 'out').write_text('')
    with pytest.raises(BpuError, match='parameter out_dir: expected a folder, found the file'):
        with staged_folder(tmp_path / 'out'):
            pass


def test_a_folder_in_a_files_place_is_never_replaced(tmp_path):
    (tmp_path / 'b').mkdir()
    (tmp_path / 'a').write_text('before')
    with pytest.raises(BpuError, match='expected a file or nothing at .*b, found a folder'):
        with staged_folder(tmp_path) as folder:
            write_ab(folder)
    assert content(tmp_path) == {'a': 'before', 'b': None}


def test_a_missing_input_of_the_block_is_not_the_folders_fault(tmp_path):
    with pytest.raises(FileNotFoundError), staged_folder(tmp_path / 'out'):
        (tmp_path / 'no input').read_text()
    assert content(tmp_path) == {}


@pytest.mark.parametrize('fail', [
    lambda folder: (folder / 'no folder' / 'a').write_text(''),
    lambda folder: (_ for _ in ()).throw(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))],
    ids=['a file of the folder', 'a full disk'])
def test_an_output_of_the_block_that_cannot_be_written_is_named(tmp_path, fail):
    with pytest.raises(BpuError, match=f'parameter out_dir: {tmp_path}/out cannot be written'):
        with staged_folder(tmp_path / 'out') as folder:
            fail(folder)
    assert content(tmp_path) == {}


def test_a_failed_write_leaves_the_earlier_file(tmp_path):
    path = tmp_path / 'model.hbm'
    write_atomically(path, b'first')
    with pytest.raises(TypeError):
        write_atomically(path, 'not bytes')
    with pytest.raises(KeyError), atomic_file(path) as partial:
        partial.write_text('half')
        raise KeyError
    assert content(tmp_path) == {'model.hbm': 'first'}


def test_a_missing_folder_is_an_error_for_the_user(tmp_path):
    with pytest.raises(BpuError, match='model.hbm cannot be written .*No such file'):
        write_atomically(tmp_path / 'no' / 'model.hbm', b'')


def test_a_file_that_cannot_be_replaced_is_named(tmp_path):
    (tmp_path / 'model.hbm').mkdir()
    with pytest.raises(BpuError, match='model.hbm cannot be written'):
        write_atomically(tmp_path / 'model.hbm', b'')
    assert content(tmp_path) == {'model.hbm': None}


def test_json_is_written_whole_into_a_folder_that_is_made(tmp_path):
    write_json(tmp_path / 'a' / 'b.json', {'x': [1, 'é']})
    assert json.loads((tmp_path / 'a' / 'b.json').read_text()) == {'x': [1, 'é']}
    with pytest.raises(BpuError, match='b.json/c.json: expected a folder, found the file .*b.json'):
        write_json(tmp_path / 'a' / 'b.json' / 'c.json', {})
    assert [path.name for path in (tmp_path / 'a').iterdir()] == ['b.json']


def unwritable(folder):
    """Name of a sort -> a path of it."""
    (folder / 'file').write_text('')
    (folder / 'dangling').symlink_to(folder / 'gone')
    (folder / 'circle').symlink_to(folder / 'circle')
    os.mkfifo(folder / 'pipe')
    return {'a file above': folder / 'file' / 'below', 'a dangling link': folder / 'dangling',
            'below a dangling link': folder / 'dangling' / 'below',
            'a circle of links': folder / 'circle', 'below a circle': folder / 'circle' / 'below',
            'a pipe': folder / 'pipe', 'below a pipe': folder / 'pipe' / 'below',
            'a device': '/dev/full', 'below a device': '/dev/null/below',
            'a file system that takes no files': '/proc/below',
            'a name that is too long': folder / ('n' * 300)}


@pytest.mark.parametrize('require', [require_file, require_folder, write_json, staged_folder])
def test_what_cannot_be_written_is_refused_before_anything_is_computed(tmp_path, require):
    paths = unwritable(tmp_path)
    before = content(tmp_path)
    for sort, path in paths.items():
        with pytest.raises(BpuError) as caught:
            if require is write_json:
                write_json(path, {})
            elif require is staged_folder:
                with staged_folder(path):
                    raise AssertionError('the block began')
            else:
                require(path)
        assert '\n' not in str(caught.value), sort
    assert content(tmp_path) == before
    assert os.path.exists('/dev/full') and not os.path.isfile('/dev/full')


def test_nothing_is_left_of_a_folder_that_can_be_written(tmp_path):
    require_folder(tmp_path / 'new' / 'out')
    require_file(tmp_path / 'new' / 'out.json')
    (tmp_path / 'file').write_text('before')
    require_file(tmp_path / 'file')
    assert content(tmp_path) == {'file': 'before'}


def test_what_a_link_leads_to_is_replaced_and_the_link_stays(tmp_path):
    (tmp_path / 'target').write_text('before')
    (tmp_path / 'link').symlink_to(tmp_path / 'target')
    write_atomically(tmp_path / 'link', b'after')
    assert (tmp_path / 'target').read_text() == 'after' and (tmp_path / 'link').is_symlink()
