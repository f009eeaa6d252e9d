"""Checkpoints from an address: each its own file, whole, and told in one sentence if not."""
import io
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from torch import nn

from mmdet_bpu.engine.download import fetch_pretrained
from mmdet_bpu.engine.weights import read_checkpoint
from mmdet_bpu.errors import BpuError


def checkpoint(value):
    buffer = io.BytesIO()
    torch.save(dict(state_dict=dict(a=torch.full((500, ), value)), meta={}), buffer)
    return buffer.getvalue()


class Pages(BaseHTTPRequestHandler):
    """Path -> (status, bytes, declared length), asked for so many times."""

    pages, asked = {}, []

    def do_GET(self):
        self.asked.append(self.path)
        status, body, length = self.pages.get(self.path, (404, b'no such page', None))
        self.send_response(status)
        if length != 'unknown':
            self.send_header('Content-Length', str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Address of a server; torch's download folder is ``tmp_path / 'hub'``."""
    monkeypatch.setattr(Pages, 'pages', {})
    monkeypatch.setattr(Pages, 'asked', [])
    monkeypatch.setattr(torch.hub, '_hub_dir', str(tmp_path / 'hub'))
    for name in ('http_proxy', 'HTTP_PROXY', 'all_proxy', 'ALL_PROXY'):
        monkeypatch.delenv(name, raising=False)
    server = ThreadingHTTPServer(('127.0.0.1', 0), Pages)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f'http://127.0.0.1:{server.server_port}'
    server.shutdown()
    server.server_close()
    thread.join()


def kept(tmp_path):
    return [path for path in (tmp_path / 'hub').rglob('*') if path.is_file()]


def test_two_addresses_with_one_base_name_are_two_files(site):
    Pages.pages = {'/a/w.pth': (200, checkpoint(1.0), None), '/b/w.pth': (200, checkpoint(2.0), None),
                   '/b/w.pth?v=2': (200, checkpoint(3.0), None)}
    for path, value in (('/a/w.pth', 1), ('/b/w.pth', 2), ('/b/w.pth?v=2', 3), ('/a/w.pth', 1)):
        assert read_checkpoint(site + path)['state_dict']['a'][0] == value
    assert Pages.asked == ['/a/w.pth', '/b/w.pth', '/b/w.pth?v=2']  # each once


@pytest.mark.parametrize('cut', [1, 500])
def test_a_short_download_is_not_kept(site, tmp_path, cut):
    whole = checkpoint(1.0)
    Pages.pages = {'/w.pth': (200, whole[:-cut], len(whole))}
    with pytest.raises(BpuError, match=f'w.pth: the connection ended after {len(whole) - cut} of '
                                       f'{len(whole)} bytes'):
        read_checkpoint(f'{site}/w.pth')
    assert kept(tmp_path) == []
    Pages.pages = {'/w.pth': (200, whole, None)}
    assert read_checkpoint(f'{site}/w.pth')['state_dict']['a'][0] == 1


@pytest.mark.parametrize('body, length', [(checkpoint(1.0)[:-500], 'unknown'),
                                          (b'<html>log in first</html>', None), (b'', None)])
def test_what_does_not_open_is_not_kept(site, tmp_path, body, length):
    Pages.pages = {'/w.pth': (200, body, length)}
    with pytest.raises(BpuError, match=f'what {site}/w.pth gave is no checkpoint, and was not kept'):
        read_checkpoint(f'{site}/w.pth')
    assert kept(tmp_path) == []


@pytest.mark.parametrize('status, words', [(404, 'HTTP 404 Not Found'),
                                           (503, 'HTTP 503 Service Unavailable')])
def test_a_server_that_has_it_not_is_told_in_one_sentence(site, tmp_path, status, words):
    Pages.pages = {'/w.pth': (status, b'', None)}
    with pytest.raises(BpuError, match=f'w.pth cannot be downloaded .{words}.; check'):
        read_checkpoint(f'{site}/w.pth')
    assert kept(tmp_path) == []


def test_an_address_that_nobody_answers_is_told_in_one_sentence(site):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    with pytest.raises(BpuError, match='cannot be downloaded .*refused'):
        read_checkpoint(f'http://127.0.0.1:{port}/w.pth')
    for address in ('http://host.invalid/w.pth', 'http://127.0.0.1:port/w.pth', 'http:///w.pth',
                    'http://[::1/w.pth', 'http://127.0.0.1:99999999/w.pth', 'http://a b/w.pth'):
        with pytest.raises(BpuError, match='cannot be downloaded'):
            read_checkpoint(address)


def test_what_parts_begin_with_is_kept_apart_too(site):
    Pages.pages = {'/a/w.pth': (200, checkpoint(1.0), None), '/b/w.pth': (200, checkpoint(2.0), None)}
    model = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1), nn.Linear(1, 1))
    for layer, config in zip(model, (
            dict(type='Pretrained', checkpoint=f'{site}/a/w.pth'),
            [dict(type='Pretrained', checkpoint=f'{site}/b/w.pth')],
            dict(type='Pretrained', checkpoint='torchvision://resnet50'))):
        layer.init_cfg = config
    fetch_pretrained(model)
    values = [torch.load(config['checkpoint'])['state_dict']['a'][0].item()
              for config in (model[0].init_cfg, model[1].init_cfg[0])]
    assert values == [1, 2]
    assert model[2].init_cfg['checkpoint'] == 'torchvision://resnet50'
