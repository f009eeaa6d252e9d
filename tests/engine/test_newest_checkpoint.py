"""The newest checkpoint of a run is the newest that opens."""
import os

import pytest
import torch

from mmdet_bpu.engine.newest_checkpoint import newest_checkpoint


@pytest.fixture
def saved(tmp_path):
    """Function (epoch, seconds, **more) -> path of a checkpoint of ``tmp_path`` of that age."""

    def save(epoch, seconds, name=None, **more):
        path = tmp_path / (name or f'epoch_{epoch}.pth')
        content = dict(state_dict=dict(a=torch.zeros(500)), meta=dict(epoch=epoch, iter=4 * epoch),
                       optimizer={}, message_hub={})
        torch.save({**content, **more}, path)
        os.utime(path, (seconds, seconds))
        return path

    return save


def name_last(path):
    (path.parent / 'last_checkpoint').write_text(f'/moved/from/{path.name}')


def cut(path):
    """Leave the first half of a file, as old as it was."""
    age = path.stat().st_mtime
    path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])
    os.utime(path, (age, age))


def test_without_a_folder_or_a_file_there_is_none(tmp_path):
    assert newest_checkpoint(tmp_path) is None
    assert newest_checkpoint(tmp_path / 'absent') is None


def test_it_is_the_one_that_the_run_named_last_wherever_the_folder_is_now(saved, tmp_path):
    saved(10, 1)
    name_last(tmp_path / 'epoch_10.pth')
    saved(2, 9)  # copied later
    assert newest_checkpoint(tmp_path).name == 'epoch_10.pth'


def test_one_that_went_further_and_was_not_named_any_more_is_newer(saved, tmp_path):
    name_last(saved(1, 1))
    saved(2, 2)
    assert newest_checkpoint(tmp_path).name == 'epoch_2.pth'


def test_what_an_earlier_run_left_in_the_folder_is_not_newer(saved, tmp_path):
    saved(50, 1)
    name_last(saved(1, 2))
    assert newest_checkpoint(tmp_path).name == 'epoch_1.pth'


@pytest.mark.parametrize('pointer', [None, '', 'epoch_9.pth', '\0', '.'])
def test_without_a_usable_name_it_is_the_youngest(saved, tmp_path, pointer):
    saved(2, 1)
    saved(1, 2)
    if pointer is not None:
        (tmp_path / 'last_checkpoint').write_text(pointer)
    assert newest_checkpoint(tmp_path).name == 'epoch_1.pth'


@pytest.mark.parametrize('damage', [cut, lambda path: path.write_bytes(b'')], ids=['cut', 'empty'])
def test_one_that_does_not_open_is_passed_over(saved, tmp_path, damage):
    saved(1, 1)
    newest = saved(2, 2)
    damage(newest)
    name_last(newest)
    assert newest_checkpoint(tmp_path).name == 'epoch_1.pth'
    damage(tmp_path / 'epoch_1.pth')
    assert newest_checkpoint(tmp_path) is None


def test_what_training_cannot_go_on_with_counts_as_weights_only(saved, tmp_path):
    saved(1, 1)
    best = saved(2, 2, name='best_mAP_epoch_2.pth')
    content = torch.load(best)
    del content['optimizer']
    torch.save(content, best)
    assert newest_checkpoint(tmp_path) == best
    assert newest_checkpoint(tmp_path, resumable=True).name == 'epoch_1.pth'
