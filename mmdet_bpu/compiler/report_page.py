"""The HTML pages of reports: their style, and the one of a deployment.

``<!--name-->`` marks of that are filled by ``report_html.render``. A page's own policy forbids it to
fetch anything, and to run any script but the one that stands in it.
"""
import base64
import hashlib

from mmdet_bpu.compiler import report_graph_page

_STYLE = '''
:root{--bg:#fbfbf9;--fg:#1d2327;--dim:#667078;--line:#dfe3e6;--card:#fff;--accent:#2f6f8f;
--error:#b3261e;--warning:#8a5a00;--note:#48606e}
@media(prefers-color-scheme:dark){:root{--bg:#14181b;--fg:#e6eaed;--dim:#98a4ac;--line:#2c343a;
--card:#1b2125;--accent:#6fb3d2;--error:#ff8a80;--warning:#f0bd5e;--note:#a9bfcb}}
*{box-sizing:border-box}body{margin:0;background:var(--bg);color:var(--fg);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1240px;margin:0 auto;padding:32px 24px 80px}
h1{font-size:27px;margin:0}h2{font-size:19px;margin:44px 0 12px}h3{font-size:15px;margin:20px 0 6px}
.sub{color:var(--dim);margin:2px 0 18px}.notice{border-left:4px solid var(--accent);
padding:8px 14px;background:var(--card);margin:10px 0}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;
margin-top:20px}.card{background:var(--card);border:1px solid var(--line);border-radius:8px;
padding:12px 14px;display:flex;flex-direction:column}.card span,.card small{color:var(--dim);
font-size:12.5px}.card b{font-size:20px;font-weight:600;white-space:nowrap}
.scroll{overflow:auto;max-height:560px;border:1px solid var(--line);border-radius:8px}
table{border-collapse:collapse;width:100%;font-size:13px;background:var(--card)}
th,td{padding:5px 10px;text-align:left;border-bottom:1px solid var(--line);vertical-align:top}
th{position:sticky;top:0;background:var(--card);white-space:nowrap;font-weight:600;
box-shadow:0 1px 0 var(--line)}.sortable th{cursor:pointer}
th[data-dir="1"]::after{content:" \\25B2"}th[data-dir="-1"]::after{content:" \\25BC"}
th.n{text-align:right}td.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.bar{width:45%}.bar i{display:block;height:12px;margin-top:4px;background:var(--accent);
border-radius:2px;min-width:1px}.plain td{border:0;padding:2px 8px}.plain{background:none}
td.error{color:var(--error);font-weight:600}td.warning{color:var(--warning);font-weight:600}
#layers td:nth-child(4){white-space:nowrap}td.note{color:var(--note)}
svg{width:100%;height:auto;display:block}svg rect{fill:var(--accent)}
svg rect:hover{fill:var(--fg)}svg text{fill:var(--dim);font-size:12px}
svg line{stroke:var(--line)}
pre{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:12px;
overflow:auto;max-height:420px;font-size:12.5px}
input[type=search]{margin:0 0 8px;padding:6px 10px;width:260px;border:1px solid var(--line);
border-radius:6px;background:var(--card);color:var(--fg)}
.lines{fill:none;stroke:var(--warning);stroke-width:1.5}svg .poor{fill:var(--error)}
.after{fill:none;stroke:var(--fg);stroke-width:1}.range{stroke:var(--error);stroke-dasharray:3 3}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(430px,1fr));gap:12px}
.charts figure,.worst figure{margin:0;background:var(--card);border:1px solid var(--line);
border-radius:8px;padding:10px 12px}figcaption{font-size:12.5px;overflow-wrap:anywhere}
figcaption small{color:var(--dim)}.worst{display:grid;gap:12px}.worst img{max-width:100%;height:auto}
'''

_SCRIPT = '''
document.querySelectorAll('.sortable').forEach(function (table) {
  var body = table.tBodies[0];
  table.querySelectorAll('th').forEach(function (head, column) {
    head.addEventListener('click', function () {
      var dir = head.dataset.dir === '-1' ? 1 : -1;
      table.querySelectorAll('th').forEach(function (h) { delete h.dataset.dir; });
      head.dataset.dir = dir;
      function key(row) {
        var cell = row.cells[column];
        return 'v' in cell.dataset ? Number(cell.dataset.v) : cell.textContent;
      }
      Array.from(body.rows).sort(function (a, b) {
        var x = key(a), y = key(b);
        return dir * (typeof x === 'number' && typeof y === 'number' ? x - y
          : String(x).localeCompare(String(y)));
      }).forEach(function (row) { body.appendChild(row); });
    });
  });
});
document.querySelectorAll('input[data-for]').forEach(function (box) {
  box.addEventListener('input', function () {
    var words = box.value.toLowerCase();
    Array.from(document.getElementById(box.dataset.for).tBodies[0].rows).forEach(function (row) {
      row.hidden = row.textContent.toLowerCase().indexOf(words) < 0;
    });
  });
});
'''

_BODY = '''
<h1><!--title--></h1>
<p class="sub">Compiled for <!--march--></p>
<p class="notice"><!--notice--></p>
<p class="notice"><!--note--></p>
<div class="cards"><!--cards--></div>
<h2>Input stage</h2>
<p class="sub">What makes the network's input of a picture; all of it is in the contract below.</p>
<!--input_stage-->
<h2>Test pictures</h2>
<!--pictures-->
<h2>Graph</h2>
<p class="sub">Instructions from top to bottom as they run, in parts of the model; the darker, the more
time. Click a part to open or close it; point at an instruction for its shapes and cost. Ctrl and the
wheel zoom, dragging moves. Without scripts all parts are open; the table of layers has the same facts.</p>
<!--graph-->
<h2>Time by op</h2>
<!--ops-->
<h2>Activation memory over time</h2>
<p class="sub">Bytes of activations that hold data at each step of the schedule; the top line is
the planned arena. Point at a bar for its step and site.</p>
<!--timeline-->
<h2>Legality</h2>
<!--findings-->
<h2>Layers</h2>
<p class="sub">In the order they run. Cycles are at a nominal 1 GHz. "least" and "most": the time if the
estimate is off as far as the worst published rows, each left out of the fit, in either direction; what
no published row can show is how the error is spread over layers. Click a heading to sort.</p>
<!--layers-->
<h2>Input and output contract</h2>
<!--contract-->
<h2>Quantization of every tensor</h2>
<!--quantization-->
<h2>Figures behind the estimate</h2>
<!--figures-->
<h3>Published latencies that the figures are fitted to, and the error at each</h3>
<p class="sub"><!--published_source--></p>
<!--published-->
'''


def document(title: str, body: str, style: str = '', script: str = '') -> str:
    """A whole page in the style of the reports.

    Args:
        title (str), body (str): HTML.
        style (str), script (str): What the page has beside the common ones. Defaults to nothing.
    """
    code = _SCRIPT + script
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    policy = ("default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
              f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'")
    return ('<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
            '<meta name="viewport" content="width=device-width,initial-scale=1">'
            f'<title>{title}</title><style>{_STYLE}{style}</style></head><body><main>{body}</main>'
            f'<script>{code}</script></body></html>\n')


PAGE = document('<!--title--> on a BPU', _BODY, report_graph_page.STYLE, report_graph_page.SCRIPT)
