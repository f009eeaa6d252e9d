"""The report's page in a real browser: it fetches nothing, its graph opens, closes and zooms.

Chromium runs the page without a window. A probe that stands behind the page's own script uses it as a
person does, and leaves what it saw in the document; the page's policy is widened for the probe alone.
"""
import base64
import hashlib
import html
import json
import re
import shutil
import subprocess

import pytest

from mmdet_bpu.compiler.compile import compile_program
from mmdet_bpu.compiler.report import ReportPicture, ReportPictures

BROWSERS = ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable')
PATIENCE = 120  # s, of one start on a busy machine
QUIET = ('--headless', '--no-sandbox', '--disable-gpu', '--disable-background-networking',
         '--disable-component-update', '--disable-sync', '--no-first-run', '--disable-extensions',
         '--disable-dev-shm-usage', '--enable-logging=stderr', '--host-resolver-rules=MAP * ~NOTFOUND')
# A grey picture of one pixel.
JPEG = base64.b64decode(
    '/9j/4AAQSkZJRgABAQEASABIAAD/2wBDAP//////////////////////////////////////////////////////'
    '////////////////////////////////wAALCAABAAEBAREA/8QAFAABAAAAAAAAAAAAAAAAAAAAA//EABQQAQAA'
    'AAAAAAAAAAAAAAAAAAD/2gAIAQEAAD8AN//Z')
PROBE = '''
var seen = {}, graph = document.getElementById('graph'), view = graph.parentNode;
function all(what) { return Array.from(document.querySelectorAll(what)); }
function button(text) { return all('.graphbar button').find(b => b.textContent === text); }
function state() {
  return {closed: all('.band.closed').length, height: Number(graph.getAttribute('height')),
          width: Number(graph.getAttribute('width')),
          links: all('.link').map(link => link.getAttribute('d')),
          places: all('.band').map(band => band.getAttribute('transform')),
          expanded: all('.head').map(head => head.getAttribute('aria-expanded'))};
}
seen.bands = all('.band').length;
seen.ops = all('.op').length;
seen.first = state();
button('close all').click();
seen.shut = state();
all('.head')[0].dispatchEvent(new MouseEvent('click', {bubbles: true}));
seen.clicked = state();
all('.head')[0].dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter', bubbles: true}));
seen.keyed = state();
button('open all').click();
seen.opened = state();
view.dispatchEvent(new WheelEvent('wheel', {deltaY: -300, ctrlKey: true, cancelable: true}));
seen.zoomed = state();
view.dispatchEvent(new WheelEvent('wheel', {deltaY: -300, cancelable: true}));
seen.scrolled = state();
button('whole').click();
seen.whole = state();
seen.room = [view.clientWidth, view.clientHeight];
button('close all').click();
var box = document.querySelector('.graphbar input');
box.value = 'HEAD/linear.1';
box.dispatchEvent(new Event('input'));
seen.hits = all('.hit').length;
seen.found = state();
all('#layers th')[0].click();
seen.sorted = all('#layers tbody tr').map(row => Number(row.cells[0].textContent));
seen.fetched = performance.getEntriesByType('resource').map(entry => entry.name);
seen.picture = all('img').map(image => image.naturalWidth);
document.body.dataset.seen = JSON.stringify(seen);
'''


@pytest.fixture(scope='module')
def chromium(tmp_path_factory):
    """Function (page) -> document after its scripts ran, lines of its console, addresses that it asked for."""
    binary = next(filter(None, map(shutil.which, BROWSERS)), None)
    if binary is None:
        pytest.skip(f'none of {", ".join(BROWSERS)} is installed')

    def run(page):
        folder = tmp_path_factory.mktemp('browser')
        log = folder / 'net.json'
        done = subprocess.run(
            [binary, *QUIET, f'--user-data-dir={folder / "user"}', f'--log-net-log={log}',
             '--virtual-time-budget=4000', '--dump-dom', page.as_uri()],
            capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, done.stderr[-2000:]
        console = [line for line in done.stderr.splitlines() if 'CONSOLE' in line]
        return done.stdout, console, asked_by_pages(log.read_text())

    return run


def asked_by_pages(log):
    """Addresses in the net that a page asked for; what Chromium asks for itself has no origin."""
    asked = set()
    for line in log.splitlines():
        initiator = re.search(r'"initiator":"([^"]*)"', line)
        if initiator and initiator[1] != 'not an origin':
            asked.update(re.findall(r'"url":"((?:https?|wss?)://[^"]*)', line))
    return asked


@pytest.fixture(scope='module')
def page(tmp_path_factory):
    """Report of a small detector with a picture, in a folder of its own."""
    from tests.integer_programs import ProgramMaker
    maker, folder = ProgramMaker(), tmp_path_factory.mktemp('report')
    stem = maker.conv(maker.input('image', (1, 16, 16, 3)), 8)
    x = maker.conv(stem, 8)
    neck = maker.op('relu', [x], (1, 16, 16, 8), site='neck.0/relu.0')
    x = maker.op('add', [neck, stem], (1, 16, 16, 8), site='head/add.0', multiplier=[16384, 16384],
                 shift=[8, 8], out_shift=8)
    x = maker.op('relu', [x], (1, 16, 16, 8), site='head/linear.1')
    result = compile_program(maker.finish(x), folder / 'model.hbm', 'nash-e', pictures=ReportPictures(
        [ReportPicture('grey.jpg', 'no box', JPEG)], 'One picture.'))
    return result.report_html


def with_probe(page, extra=''):
    """The page with a probe behind its script, which its policy is told of."""
    text = page.read_text()
    digest = base64.b64encode(hashlib.sha256(PROBE.encode()).digest()).decode()
    widened = text.replace("script-src 'sha256-", f"script-src 'sha256-{digest}' 'sha256-")
    assert widened != text
    probed = page.with_name('probed.html')
    probed.write_text(widened.replace('</body>', f'{extra}<script>{PROBE}</script></body>'))
    return probed


@pytest.fixture(scope='module')
def seen(chromium, page):
    """What the probe saw."""
    document, console, addresses = chromium(with_probe(page))
    found = re.search(r'data-seen="([^"]*)"', document)
    assert found, console
    return dict(json.loads(html.unescape(found[1])), console=console, addresses=addresses)


def test_the_script_ran_without_a_word_on_the_console(chromium, page):
    document, console, addresses = chromium(page)
    assert 'data-ready="3 parts"' in document and document.count('class="op"') == 5
    assert document.count('<button type="button">') == 5
    assert console == [] and addresses == set()


def test_the_page_asks_nobody_for_anything(seen):
    assert seen['console'] == [] and seen['addresses'] == set()
    assert all(name.startswith('data:') for name in seen['fetched'])
    assert seen['picture'] == [1]


def test_a_page_that_asks_somebody_is_found_out(chromium, page):
    asking = with_probe(page, '<img src="http://example.invalid/a.png">')
    assert any('Content Security Policy' in line for line in chromium(asking)[1])
    asking.write_text(re.sub('<meta http-equiv=[^>]*>', '', asking.read_text()))
    assert chromium(asking)[2] == {'http://example.invalid/a.png'}


def test_the_script_places_and_links_parts_as_the_page_does_without_it(page, seen):
    text = page.read_text()
    drawn = re.findall(r'class="link" [^>]*d="([^"]*)"', text)
    places = re.findall(r'class="band" [^>]*transform="([^"]*)"', text)
    assert len(drawn) == 3 and any('C' in path for path in drawn)  # one passes the neck
    assert seen['first']['closed'] == 0
    assert (seen['first']['links'], seen['first']['places']) == (drawn, places)
    assert seen['opened'] == seen['first']


def test_parts_open_and_close_by_mouse_and_by_key(seen):
    assert (seen['bands'], seen['ops']) == (3, 5)
    assert seen['shut']['closed'] == 3 and seen['shut']['expanded'] == ['false'] * 3
    assert seen['shut']['height'] < seen['clicked']['height'] < seen['first']['height']
    assert seen['clicked']['expanded'] == ['true', 'false', 'false']
    assert seen['keyed'] == seen['shut']


def test_the_graph_zooms_by_the_wheel_with_ctrl_and_by_buttons(seen):
    ratio = seen['zoomed']['width'] / seen['opened']['width']
    assert ratio == pytest.approx(seen['zoomed']['height'] / seen['opened']['height']) \
        == pytest.approx(2.718, rel=1e-3)
    assert seen['scrolled'] == seen['zoomed']
    assert seen['whole']['width'] <= seen['room'][0] and seen['whole']['height'] <= seen['room'][1]


def test_search_marks_what_it_finds_and_opens_its_part(seen):
    assert seen['hits'] == 1 and seen['found']['expanded'] == ['false', 'false', 'true']


def test_tables_sort(seen):
    assert seen['sorted'] == [4, 3, 2, 1, 0]
