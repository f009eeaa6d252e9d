"""The commands of docs/data.md, run in their order in a folder that is laid out as they say."""
import re
import shlex
import shutil
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
DOCUMENT = CHECKOUT / 'docs' / 'data.md'


def commands() -> list[list[str]]:
    blocks = re.findall(r'^```bash\n(.*?)^```', DOCUMENT.read_text(encoding='utf-8'),
                        re.MULTILINE | re.DOTALL)
    return [shlex.split(line) for line in ''.join(blocks).splitlines()]


def test_commands_run_as_they_stand(make_coco, tmp_path, tool_process):
    for root in (tmp_path, tmp_path / 'mscoco'):
        files = make_coco(root / 'made')
        (root / 'annotations').mkdir()
        files.img_dir.rename(root / 'train2017')
        files.ann_file.rename(root / 'annotations' / 'instances_train2017.json')
    shutil.copytree(tmp_path / 'train2017', tmp_path / 'pictures')
    assert len(commands()) >= 5
    for command in commands():
        assert command[:2] == ['python', 'tools/pack_coco_lmdb.py']
        done = tool_process('pack_coco_lmdb.py', *command[2:], cwd=tmp_path)
        assert done.returncode == 0, f'{shlex.join(command)}\n{done.stderr}'
    assert {path.name for path in tmp_path.iterdir()} >= {'train_lmdb', 'small_lmdb', 'pictures_lmdb'}
    assert (tmp_path / 'mscoco' / 'train_lmdb' / 'data.mdb').is_file()
