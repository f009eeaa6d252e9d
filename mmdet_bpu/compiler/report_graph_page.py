"""Style and script of the graph in a report's page.

The script closes and opens bands of instructions, zooms (buttons, or the wheel with Ctrl), moves the
picture by dragging and marks what is searched for. Its rule for positions and links is that of
``graph_svg``, whose numbers it reads from the picture; a test in a browser compares the two.
"""

SHADES = 10  # of an instruction by its time

STYLE = '''
.graphview{overflow:auto;max-height:720px;border:1px solid var(--line);border-radius:8px;
background:var(--card)}svg.graph{width:auto;height:auto;max-width:none}
.graph .frame{fill:none;stroke:var(--line)}.graph .title{fill:var(--line)}
.graph .title:hover{fill:var(--dim)}.graph .frame:hover{fill:none}
.graph .op rect:hover{stroke:var(--fg)}.graph .head{cursor:pointer}.graph .name{font-weight:600}
.graph text{fill:var(--fg);pointer-events:none}.graph .op text{font-size:11px}
.graph .op rect{fill:var(--card);stroke:var(--line)}
.graph .op.hit rect{stroke:var(--error);stroke-width:3}.graph path{fill:none;stroke:var(--dim)}.graph .link{stroke-width:1.5;opacity:.7}
.graph .edge{opacity:.55}.graph .closed .inside{display:none}
.graphbar{display:flex;gap:6px;align-items:center;margin:0 0 8px}.graphbar input{margin:0!important}
.graphbar button{padding:5px 11px;border:1px solid var(--line);border-radius:6px;
background:var(--card);color:var(--fg);cursor:pointer;font:inherit;font-size:13px}
''' + ''.join(f'.graph .op .shade{shade}{{fill:color-mix(in srgb,var(--accent) {8 + 8 * shade}%,var(--card))}}\n'
              for shade in range(SHADES))

SCRIPT = '''
(function () {
  var svg = document.getElementById('graph');
  if (!svg) { return; }
  var view = svg.parentNode, zoom = 1, height = 0, CLOSED_FROM = 60;
  function number(name) { return Number(svg.dataset[name]); }
  var width = number('width'), head = number('head'), gutter = number('gutter');
  var bands = Array.from(svg.querySelectorAll('.band'));
  var links = Array.from(svg.querySelectorAll('.link'));
  function resize() {
    svg.setAttribute('viewBox', '0 0 ' + width + ' ' + height);
    svg.setAttribute('width', width * zoom);
    svg.setAttribute('height', height * zoom);
  }
  function arrange() {
    var y = number('pad'), tops = [], heights = [];
    bands.forEach(function (band) {
      var closed = band.classList.contains('closed');
      var tall = head + (closed ? 0 : Number(band.dataset.inner));
      tops.push(y);
      heights.push(tall);
      band.setAttribute('transform', 'translate(0,' + y + ')');
      band.querySelector('.frame').setAttribute('height', tall);
      band.querySelector('.head').setAttribute('aria-expanded', String(!closed));
      y += tall + number('gap');
    });
    links.forEach(function (link) {
      var a = Number(link.dataset.from), b = Number(link.dataset.to), path;
      if (b === a + 1) {
        path = 'M' + (gutter + width) / 2 + ' ' + (tops[a] + heights[a]) + 'V' + tops[b];
      } else {
        var x = Math.max(gutter - 12 - 5 * (b - a), 6);
        var start = tops[a] + head / 2, end = tops[b] + head / 2;
        path = 'M' + gutter + ' ' + start + 'C' + x + ' ' + start + ' ' + x + ' ' + end + ' '
          + gutter + ' ' + end;
      }
      link.setAttribute('d', path);
    });
    height = y;
    resize();
  }
  function closeAll(closed) {
    bands.forEach(function (band) { band.classList.toggle('closed', closed); });
    arrange();
  }
  function zoomTo(wanted, x, y) {
    var before = zoom;
    zoom = Math.min(Math.max(wanted, 0.05), 5);
    var across = (view.scrollLeft + x) / before, down = (view.scrollTop + y) / before;
    resize();
    view.scrollLeft = across * zoom - x;
    view.scrollTop = down * zoom - y;
  }
  function zoomBy(factor) { zoomTo(zoom * factor, view.clientWidth / 2, view.clientHeight / 2); }
  bands.forEach(function (band) {
    var bar = band.querySelector('.head');
    function toggle() { band.classList.toggle('closed'); arrange(); }
    bar.addEventListener('click', toggle);
    bar.addEventListener('keydown', function (event) {
      if (event.key === 'Enter' || event.key === ' ') { event.preventDefault(); toggle(); }
    });
  });
  view.addEventListener('wheel', function (event) {
    if (!event.ctrlKey) { return; }
    event.preventDefault();
    var box = view.getBoundingClientRect();
    zoomTo(zoom * Math.exp(-event.deltaY / 300), event.clientX - box.left, event.clientY - box.top);
  }, {passive: false});
  var from = null;
  view.addEventListener('mousedown', function (event) {
    from = [event.clientX + view.scrollLeft, event.clientY + view.scrollTop];
  });
  window.addEventListener('mouseup', function () { from = null; });
  window.addEventListener('mousemove', function (event) {
    if (from === null) { return; }
    event.preventDefault();
    view.scrollLeft = from[0] - event.clientX;
    view.scrollTop = from[1] - event.clientY;
  });
  var bar = document.createElement('div'), search = document.createElement('input');
  bar.className = 'graphbar';
  function button(text, action) {
    var made = document.createElement('button');
    made.type = 'button';
    made.textContent = text;
    made.addEventListener('click', action);
    bar.appendChild(made);
  }
  button('open all', function () { closeAll(false); });
  button('close all', function () { closeAll(true); });
  button('larger', function () { zoomBy(1.25); });
  button('smaller', function () { zoomBy(0.8); });
  button('whole', function () {
    zoomTo(Math.min((view.clientWidth - 4) / width, (view.clientHeight - 4) / height), 0, 0);
  });
  search.type = 'search';
  search.placeholder = 'find a site or op';
  search.addEventListener('input', function () {
    var words = search.value.toLowerCase();
    bands.forEach(function (band) {
      band.querySelectorAll('.op').forEach(function (op) {
        var hit = words !== '' && op.textContent.toLowerCase().indexOf(words) >= 0;
        op.classList.toggle('hit', hit);
        if (hit) { band.classList.remove('closed'); }
      });
    });
    arrange();
  });
  bar.appendChild(search);
  view.parentNode.insertBefore(bar, view);
  closeAll(svg.querySelectorAll('.op').length > CLOSED_FROM);
  svg.dataset.ready = bands.length + ' parts';
})();
'''
