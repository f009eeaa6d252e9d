"""What is wrong with a config file is said before anything large is imported."""
import json
import subprocess
import sys
from pathlib import Path

TOOLS = Path(__file__).resolve().parents[2] / 'tools'
CASES = {
    'no such config': ['train.py', 'no_such_config.py'],
    'no Python': ['check_model.py', 'broken.py'],
    'of the wrong structure': ['check_model.py', 'wrong.py', '--sites'],
    'no override': ['export_hbir.py', 'empty.py', 'x.pth', '--out', 'o', '--cfg-options', 'a=(1,('],
    'no such stage': ['test.py', 'empty.py', 'x.pth', '--stage', 'half'],
}
CHILD = '''
import contextlib, io, json, runpy, sys
found = {}
for name, (tool, *arguments) in json.loads(sys.argv[1]).items():
    sys.argv, code, said = [tool, *arguments], 0, io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        try:
            runpy.run_path(tool, run_name='__main__')
        except SystemExit as stop:
            code = stop.code or 0
    large = [m for m in ('torch', 'mmcv', 'mmdet', 'xdsl', 'cv2') if m in sys.modules]
    found[name] = dict(code=code, said=said.getvalue(), large=large)
print(json.dumps(found))
'''


def test_a_refused_config_imports_nothing_large(tmp_path):
    (tmp_path / 'broken.py').write_text('model = (\n')
    (tmp_path / 'wrong.py').write_text('model = 3\n')
    (tmp_path / 'empty.py').write_text('')
    cases = {name: [str(TOOLS / tool), *rest] for name, (tool, *rest) in CASES.items()}
    run = subprocess.run([sys.executable, '-c', CHILD, json.dumps(cases)], cwd=tmp_path,
                         capture_output=True, text=True, check=True)
    for name, found in json.loads(run.stdout).items():
        assert (found['code'], found['large']) == (2, []), (name, found)
        assert found['said'].count('\n') == 1 or name == 'no such stage', (name, found)
