import json
import multiprocessing
import os
import resource
import tempfile
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec, module_from_spec
from pathlib import Path

import lmdb
import pytest
from mmengine import fileio
from mmengine.fileio import LocalBackend, get_file_backend

from mmdet_bpu.datasets import CocoLMDBBackend, pack_coco
from mmdet_bpu.errors import BpuError


def backend_args(path, **options):
    return dict(backend='coco_lmdb', lmdb=str(path), **options)


def names_of(coco_files):
    return [image['file_name'] for image in coco_files.content()['images']]


def pack_names(coco_files, out, names):
    """A database of these file names, each with bytes of its own."""
    images = coco_files.content()['images'][:len(names)]
    for image, name in zip(images, names):
        content = (coco_files.img_dir / image['file_name']).read_bytes()
        image['file_name'] = name
        path = coco_files.img_dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    coco_files.rewrite(images=images, annotations=[])
    pack_coco(*coco_files, out)
    return CocoLMDBBackend(out)


@pytest.mark.parametrize('folder', [
    '', 'data/coco/train2017/', '/mnt/data/train2017/', './', './train2017//', '../train2017/',
    'data/val2017/../train2017/./', 'data\\coco\\train2017\\', 'C:\\data\\', 's3://bucket/train/'
])
def test_image_is_found_under_any_folder(coco_files, packed, folder):
    args = backend_args(packed)
    for name in names_of(coco_files):
        expected = (coco_files.img_dir / name).read_bytes()
        assert fileio.get(folder + name, backend_args=args) == expected
        assert fileio.get(Path(folder + name), backend_args=args) == expected
        assert fileio.exists(folder + name, backend_args=args)
        assert fileio.isfile(folder + name, backend_args=args)
        assert not fileio.isdir(folder + name, backend_args=args)


def test_folders_of_a_file_name_may_be_written_in_any_way(coco_files, packed):
    expected = (coco_files.img_dir / 'deep/er/c.jpg').read_bytes()
    for path in ('deep/er/c.jpg', 'x/deep/./er//c.jpg', 'deep/y/../er/c.jpg', 'x\\deep\\er\\c.jpg'):
        assert CocoLMDBBackend(packed).get(path) == expected
    assert not CocoLMDBBackend(packed).exists('x/er/c.jpg')


def test_longest_end_of_the_path_wins(coco_files, tmp_path):
    backend = pack_names(coco_files, tmp_path / 'lmdb', ['x.jpg', 'a/x.jpg', 'b/a/x.jpg'])
    for path, name in [('x.jpg', 'x.jpg'), ('c/x.jpg', 'x.jpg'), ('a/x.jpg', 'a/x.jpg'),
                       ('c/a/x.jpg', 'a/x.jpg'), ('/c/b/a/x.jpg', 'b/a/x.jpg'),
                       ('c/a/./x.jpg', 'a/x.jpg'), ('c/a/../x.jpg', 'x.jpg')]:
        assert backend.get(path) == (coco_files.img_dir / name).read_bytes()


def test_equal_base_names_in_different_folders_are_told_apart(coco_files, tmp_path):
    backend = pack_names(coco_files, tmp_path / 'lmdb', ['a/x.jpg', 'b/x.jpg'])
    assert backend.get('data/a/x.jpg') == (coco_files.img_dir / 'a/x.jpg').read_bytes()
    assert backend.get('data/b/x.jpg') == (coco_files.img_dir / 'b/x.jpg').read_bytes()
    assert not backend.exists('data/c/x.jpg')
    assert not backend.exists('x.jpg')


@pytest.mark.parametrize('name', ['./dot.jpg', 'a//b.jpg', '../images/up.jpg', 'a\\b.jpg'])
def test_file_name_that_is_not_a_plain_path_is_found(coco_files, tmp_path, name):
    expected = (coco_files.img_dir / 'a.jpg').read_bytes()
    backend = pack_names(coco_files, tmp_path / 'lmdb', [name])
    assert backend.get(os.path.join('data/train', name)) == expected


def test_backslash_in_a_name_is_one_before_it_is_a_slash(coco_files, tmp_path):
    backend = pack_names(coco_files, tmp_path / 'lmdb', ['b.jpg', 'a\\b.jpg'])
    assert backend.get('x/a\\b.jpg') == (coco_files.img_dir / 'a\\b.jpg').read_bytes()
    assert backend.get('x\\b.jpg') == (coco_files.img_dir / 'b.jpg').read_bytes()


def test_path_with_a_slash_at_its_end_is_no_image(packed):
    for path in ('images/a.jpg/', 'images\\a.jpg\\', 'images/', '', '.'):
        assert not CocoLMDBBackend(packed).isfile(path)


def test_img_dir_keeps_other_files_of_the_same_name_apart(packed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('masks').mkdir()
    Path('masks/b.png').write_bytes(b'a mask')
    anywhere = CocoLMDBBackend(packed)
    assert anywhere.get('masks/b.png') == anywhere.get('train/b.png')
    for img_dir in ('train', 'data/train/', './data//train', 'data\\train'):
        backend = CocoLMDBBackend(packed, img_dir=img_dir)
        assert backend.get('masks/b.png') == b'a mask'
        assert backend.get('/mnt/data/train/b.png') == anywhere.get('b.png')
        assert backend.get('data/train/deep/er/c.jpg') == anywhere.get('deep/er/c.jpg')
        assert not backend.exists('data/retrain/b.png')
        assert not backend.exists('data/train/deep/b.png')
        assert not backend.exists('b.png')


def test_local_files_pass_through(packed, tmp_path):
    args = backend_args(packed)
    path = str(tmp_path / 'notes.txt')
    fileio.put_text('ä\r\nb', path, backend_args=args)
    assert fileio.get(path, backend_args=args) == LocalBackend().get(path)
    assert fileio.get_text(path, backend_args=args) == LocalBackend().get_text(path) == 'ä\nb'
    assert fileio.isfile(path, backend_args=args) and fileio.isdir(tmp_path, backend_args=args)
    assert fileio.join_path('a', 'b', 'c.jpg', backend_args=args) == 'a/b/c.jpg'
    with fileio.get_local_path(path, backend_args=args) as local:
        assert local == path
    assert os.path.exists(path)


def test_missing_file_names_path_and_database(packed):
    backend = CocoLMDBBackend(packed, img_dir='train')
    for read in (backend.get, backend.get_text, backend.list_dir_or_file,
                 lambda path: backend.get_local_path(path).__enter__()):
        with pytest.raises(FileNotFoundError, match=(
                "'data/none.jpg' is neither on the disk nor in .*/packed_lmdb .*'images'.*"
                "looked for in 'train'.*instances.json.*check data_root")) as found:
            read('data/none.jpg')
        assert isinstance(found.value, BpuError)
    with pytest.raises(BpuError, match='neither on the disk'):
        backend.get(packed / 'data.mdb' / 'below_a_file.jpg')
    assert not backend.exists('data/none.jpg')


def test_missing_database_is_not_a_missing_file(tmp_path):
    with pytest.raises(BpuError, match='no packed COCO data set at .*nowhere') as found:
        CocoLMDBBackend(tmp_path / 'nowhere').get('a.jpg')
    assert not isinstance(found.value, FileNotFoundError)


def test_damaged_image_is_not_a_missing_file(packed):
    key = b'image/%019d' % 139
    with lmdb.open(str(packed), lock=False, map_size=1 << 26) as environment:
        with environment.begin(write=True) as transaction:
            value = bytearray(transaction.get(key))
            value[50] ^= 1
            transaction.put(key, bytes(value))
    backend = CocoLMDBBackend(packed)
    with pytest.raises(BpuError, match='image 139 is damaged') as found:
        backend.get('images/a.jpg')
    assert not isinstance(found.value, FileNotFoundError)
    assert backend.get('images/b.png')


def test_image_is_lent_as_a_file_of_its_name(coco_files, packed):
    with fileio.get_local_path('data/deep/er/c.jpg', backend_args=backend_args(packed)) as path:
        assert Path(path).name == 'c.jpg'
        assert Path(path).read_bytes() == (coco_files.img_dir / 'deep/er/c.jpg').read_bytes()
    assert not Path(path).parent.exists()


def test_annotation_file_is_lent_and_taken_back(coco_files, packed):
    expected = coco_files.content()
    order = {image['id']: n for n, image in enumerate(expected['images'])}
    expected['annotations'].sort(key=lambda annotation: order[annotation['image_id']])
    args = backend_args(packed)
    for ann_file in ('instances.json', 'data/coco/annotations/instances.json', 'a\\instances.json'):
        with fileio.get_local_path(ann_file, backend_args=args) as path:
            assert json.loads(Path(path).read_text()) == expected
        assert not Path(path).parent.exists()
    with pytest.raises(ZeroDivisionError):
        with fileio.get_local_path('annotations/instances.json', backend_args=args) as path:
            1 / 0
    assert not Path(path).parent.exists()
    assert fileio.isfile('annotations/instances.json', backend_args=args)
    assert fileio.load('annotations/instances.json', backend_args=args) == expected
    with pytest.raises(FileNotFoundError, match='panoptic.json'):
        fileio.load('annotations/panoptic.json', backend_args=args)


def test_annotation_file_without_annotations_is_lent(coco_files, tmp_path):
    backend = pack_names(coco_files, tmp_path / 'lmdb', ['x.jpg', 'y.jpg'])
    assert json.loads(backend.get('instances.json')) == coco_files.content()


def test_annotation_file_on_the_disk_comes_first(coco_files, packed):
    coco_files.rewrite(annotations=[])
    with fileio.get_local_path(coco_files.ann_file, backend_args=backend_args(packed)) as path:
        assert path == str(coco_files.ann_file)
    assert coco_files.ann_file.exists()


def test_annotation_file_follows_a_database_packed_anew(coco_files, packed):
    args = backend_args(packed)
    assert len(fileio.load('x/instances.json', backend_args=args)['images']) == 8
    coco_files.rewrite(images=coco_files.content()['images'][:2], annotations=[])
    pack_coco(*coco_files, packed, overwrite=True)
    assert len(fileio.load('x/instances.json', backend_args=args)['images']) == 2
    assert not fileio.exists('x/deep/er/c.jpg', backend_args=args)


def test_copy_that_finds_no_room_is_explained(packed, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(BpuError, match='cannot write .*instances.json.*too large.*TMPDIR'):
            with CocoLMDBBackend(packed).get_local_path('x/instances.json'):
                pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.glob('coco_lmdb_*'))


@pytest.mark.parametrize('options', [
    dict(), dict(recursive=True), dict(list_dir=False, recursive=True),
    dict(list_dir=False, suffix='.jpg'), dict(list_dir=False, suffix=('.png', 'y.jpg')),
    dict(list_file=False), dict(list_file=False, recursive=True)], ids=str)
@pytest.mark.parametrize('folder', ['', '/', '/deep', '/deep/er/'])
def test_packed_folder_is_listed_as_it_was_on_the_disk(coco_files, tmp_path, folder, options):
    images = coco_files.content()['images']
    for image, name in zip(images, ('.hidden.jpg', 'deep/.b.png')):
        (coco_files.img_dir / image['file_name']).rename(coco_files.img_dir / name)
        image['file_name'] = name
    coco_files.rewrite(images=images)
    pack_coco(*coco_files, tmp_path / 'lmdb')
    expected = sorted(LocalBackend().list_dir_or_file(f'{coco_files.img_dir}{folder}', **options))
    for root, backend in [('data/images', CocoLMDBBackend(tmp_path / 'lmdb')),
                          ('train', CocoLMDBBackend(tmp_path / 'lmdb', img_dir='train'))]:
        assert backend.isdir(root + folder) and backend.exists(root + folder)
        assert sorted(backend.list_dir_or_file(root + folder, **options)) == expected


def test_only_the_packed_folder_and_its_folders_are_folders(packed):
    backend = CocoLMDBBackend(packed)
    assert backend.isdir('data/images/deep/er')
    for path in ('data/images/er', 'data/images/a.jpg', 'data/other', 'deep/er'):
        assert not backend.isdir(path)


def test_folder_that_is_not_packed_is_listed_from_the_disk(packed, tmp_path):
    backend = CocoLMDBBackend(packed)
    assert sorted(backend.list_dir_or_file(tmp_path)) == sorted(os.listdir(tmp_path))
    with pytest.raises(TypeError, match='suffix'):
        backend.list_dir_or_file('data/images', suffix='.jpg')


@pytest.mark.parametrize('method', ['fork', 'spawn'])
def test_backend_travels_to_other_processes(coco_files, packed, method):
    backend = CocoLMDBBackend(packed)
    expected = (coco_files.img_dir / 'a.jpg').read_bytes()
    assert backend.get('images/a.jpg') == expected  # opened in the parent as well
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.apply_async(backend.get, ('images/a.jpg', )).get(timeout=120) == expected


def test_many_threads_read(coco_files, packed):
    names = names_of(coco_files) * 50
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(CocoLMDBBackend(packed).get, names))
    assert found == [(coco_files.img_dir / name).read_bytes() for name in names]


def test_backend_holds_no_more_than_paths(coco_files, packed):
    backend = CocoLMDBBackend(packed)
    for name in (*names_of(coco_files), 'instances.json'):
        backend.get(name)
    assert vars(backend) == dict(lmdb=str(packed), img_dir='.')


def test_mmengine_keeps_one_backend_for_each_database(packed, tmp_path):
    first, again, other = (
        get_file_backend(backend_args=backend_args(path), enable_singleton=True)
        for path in (packed, packed, tmp_path))
    assert first is again and first is not other


def test_database_is_found_after_the_working_folder_changed(packed, tmp_path, monkeypatch):
    monkeypatch.chdir(packed.parent)
    backend = CocoLMDBBackend('packed_lmdb')
    monkeypatch.chdir('/')
    assert backend.get('a.jpg')


def test_module_may_be_imported_again(packed):
    spec = find_spec('mmdet_bpu.datasets.lmdb_backend')
    again = module_from_spec(spec)
    try:
        spec.loader.exec_module(again)
        assert type(get_file_backend(backend_args=backend_args(packed))) is again.CocoLMDBBackend
    finally:
        fileio.register_backend('coco_lmdb', CocoLMDBBackend, force=True)


@pytest.mark.parametrize('name', ['x' * 300 + '.jpg', 'a\0b.jpg', 'x/' * 3000 + 'none.jpg'],
                         ids=['long', 'nul', 'deep'])
def test_a_name_that_no_file_can_have_is_missing(packed, name):
    with pytest.raises(BpuError, match='jpg'):
        CocoLMDBBackend(packed).get(f'images/{name}')
