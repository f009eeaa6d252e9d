"""Pictures: damaged files, what is no file, odd names, and arrays that are no pictures."""
import os
import random
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any, Callable, Tuple

import cv2
import numpy as np
import torch

from fuzzing.case import Case
from fuzzing.settings import BASE
from mmdet_bpu import apis
from mmdet_bpu.analysis.model_check import observe_random_image, set_random_weights
from mmdet_bpu.datasets.picture_files import MOST_BYTES, MOST_PIXELS, read_picture
from mmdet_bpu.engine.picture_run import detect_in_pictures
from mmdet_bpu.engine.predictors import ArtifactPredictor
from mmdet_bpu.executors.interpreter import Interpreter
from mmdet_bpu.hbir.integer_program import program_from_module
from mmdet_bpu.quantization import prepare, quantized_graphs

SHAPE = (24, 40)  # (height, width) of the seeds, px
LOSSLESS = ('.png', '.bmp', '.ppm', '.tiff')
FORMATS = (*LOSSLESS, '.jpg', '.webp')
ODD_NAMES = (b'\xff\xfe.png', b'a\nb.png', b'\x01.PNG', 'é\u202e.png'.encode(), b'n' * 251 + b'.png',
             b'-o.png', b' .png', b"'\".png", b'\\udcff.png', b'..png')
SIDES = (0, 1, 2**15, 2**16, 2**17, 2**20, 2**31 - 1, 2**32 - 1)
# A picture in three channels, decoded and drawn, besides what its file takes.
BUDGET = 4 * 3 * MOST_PIXELS + MOST_BYTES


def _fifo(path: bytes) -> None:
    os.mkfifo(path)


def _circle(path: bytes) -> None:
    os.symlink(path, path)


def _dangling(path: bytes) -> None:
    os.symlink(b'/nowhere/at/all.png', path)


def _device(path: bytes) -> None:
    os.symlink(b'/dev/zero', path)


def _folder_link(path: bytes) -> None:
    os.symlink(os.path.dirname(path), path)


def _empty(path: bytes) -> None:
    Path(os.fsdecode(path)).write_bytes(b'')


def _text(path: bytes) -> None:
    Path(os.fsdecode(path)).write_bytes(b'no picture')


# What is listed under skipped; folders, links to them too, are no pictures and not named.
SKIPPED = (_fifo, _circle, _dangling, _device, _empty, _text)
UNNAMED = (_folder_link, os.mkdir)


class Pictures:
    """Through the reader, the predictor of a small artefact, and the run over a folder."""
    name = 'pictures'
    budget_bytes = BUDGET

    def prepare(self, folder: Path) -> None:
        """See :class:`fuzzing.case.Kind`."""
        self.folder = folder
        (folder / 'base.py').write_text(''.join(f'{k} = {v!r}\n' for k, v in BASE.items()))
        cfg = apis.load_config(str(folder / 'base.py'), 'int', ['bpu.calibration.observer=minmax'])
        settings = apis.settings_of(cfg)
        model = apis.build_detector(cfg)
        set_random_weights(model)
        prepare(model, settings)
        observe_random_image(model)
        exported = apis.to_integers(quantized_graphs(model), apis.metadata_of(cfg, model))
        self.predictor = ArtifactPredictor(
            Interpreter(program_from_module(exported.integer)), 'small')
        noise = np.random.default_rng(0).integers(0, 256, (*SHAPE, 3), dtype=np.uint8)
        self.image = noise
        self.seeds = {kind: cv2.imencode(kind, noise)[1].tobytes() for kind in FORMATS}

    def case(self, rng: random.Random) -> Case:
        """A case's data: how it is run, and what on."""
        return rng.choice([self._bytes, self._bytes, self._sizes, self._names, self._things,
                           self._arrays])(rng)

    def run(self, case: Case) -> str:
        """See :class:`fuzzing.case.Kind`."""
        way, *data = case.data
        return way(*data)

    def _bytes(self, rng: random.Random) -> Case:
        kind = rng.choice(FORMATS)
        content = bytearray(self.seeds[kind])
        change = rng.choice(['flip', 'cut', 'insert', 'head', 'none', 'after'])
        place = rng.randrange(min(len(content), 64) if change == 'head' else len(content))
        if change in ('flip', 'head'):
            for _ in range(rng.choice([1, 1, 4, 32])):
                content[(place + rng.randrange(8)) % len(content)] = rng.randrange(256)
        elif change == 'cut':
            del content[place:]
        elif change == 'insert':
            content[place:place] = rng.randbytes(rng.randint(1, 64))
        elif change == 'after':
            content += rng.randbytes(64)
        kept = change in ('none', 'after') and kind in LOSSLESS
        return Case((self._read, bytes(content), kind, kept), f'{kind}, {change} at {place}')

    def _sizes(self, rng: random.Random) -> Case:
        """Headers that declare a size, their checksums valid."""
        width, height = rng.choice(SIDES), rng.choice(SIDES)
        kind = rng.choice(['.png', '.bmp', '.ppm'])
        if kind == '.ppm':
            content = b'P6 %d %d 255\n' % (width, height) + self.image.tobytes()
        elif kind == '.png':
            chunk = b'IHDR' + struct.pack('>II', width, height) + self.seeds[kind][24:29]
            content = b''.join([self.seeds[kind][:12], chunk, struct.pack('>I', zlib.crc32(chunk)),
                                self.seeds[kind][33:]])
        else:
            content = bytearray(self.seeds[kind])
            struct.pack_into('<II', content, 18, width, height)
        return Case((self._read, bytes(content), kind, False),
                    f'{kind} that declares {width} x {height}')

    def _read(self, content: bytes, kind: str, kept: bool) -> str:
        path = self.folder / f'picture{kind}'
        path.write_bytes(content)
        image = read_picture(path)
        if image.shape[0] * image.shape[1] > MOST_PIXELS:
            return 'different'
        self.predictor.predict(image)
        return 'different' if kept and not np.array_equal(image, self.image) else 'equal'

    def _names(self, rng: random.Random) -> Case:
        name = rng.choice(ODD_NAMES)
        return Case((self._walk, name, None, True), f'name {name!r}')

    def _things(self, rng: random.Random) -> Case:
        make = rng.choice(SKIPPED + UNNAMED)
        name = rng.choice((b'thing.png', *ODD_NAMES[:3]))
        return Case((self._walk, name, make, make in SKIPPED), f'{make.__name__} {name!r}')

    def _walk(self, name: bytes, make: Callable[[bytes], Any], named: bool) -> str:
        """A folder with one picture and one odd thing: the picture is done, the thing is named."""
        folder, out = self.folder / 'walked', self.folder / 'seen'
        for old in (folder, out):
            shutil.rmtree(old, ignore_errors=True)
        folder.mkdir()
        (folder / 'good.png').write_bytes(self.seeds['.png'])
        path = os.path.join(os.fsencode(folder), name)
        if make is None:
            Path(os.fsdecode(path)).write_bytes(self.seeds['.png'])
        else:
            make(path)
        result = detect_in_pictures([self.predictor], folder, out, 0.5)
        done, skipped = len(result['images']), len(result['skipped'])
        drawn = all((out / each['picture']).is_file() for each in result['images'])
        expected = (2, 0) if make is None else (1, int(named))
        return 'equal' if drawn and (done, skipped) == expected else 'different'

    def _arrays(self, rng: random.Random) -> Case:
        make, valid = rng.choice(ARRAYS)
        if rng.random() < 0.5:
            return Case((self._predict, make, valid), f'predict {make(self.image)!r:.80}')
        tensor = rng.choice(TENSORS)
        return Case((self._run, tensor), f'run of {tensor.__name__} {rng.random()}')

    def _predict(self, make: Callable, valid: bool) -> str:
        self.predictor.predict(make(self.image.copy()))
        return 'equal' if valid else 'different'

    def _run(self, make: Callable) -> str:
        spec = self.predictor.executable.inputs[0]
        self.predictor.executable.run(make(spec.name, torch.zeros(spec.shape, dtype=torch.int8)))
        return 'equal' if make is _as_it_is else 'different'


ARRAYS: Tuple[Tuple[Callable, bool], ...] = (
    (lambda image: image, True), (lambda image: image[::-1, ::-2], True),
    (lambda image: np.asfortranarray(image), True), (lambda image: image[:1, :1], True),
    (lambda image: None, False), (lambda image: image.tolist(), False),
    (lambda image: image.astype(np.float32), False), (lambda image: image.astype(np.int8), False),
    (lambda image: np.full(image.shape, np.nan), False), (lambda image: image.astype(object), False),
    (lambda image: image[:0], False), (lambda image: image[:, :0], False),
    (lambda image: image[..., 0], False), (lambda image: image[..., :2], False),
    (lambda image: image[None], False), (lambda image: image.tobytes(), False),
    (lambda image: torch.from_numpy(image), False), (lambda image: np.uint8(3), False),
    (lambda image: image.astype('U1'), False), (lambda image: image.astype(bool), False),
    (lambda image: image.astype('>u2'), False), (lambda image: 'photo.png', False))


def _as_it_is(name, tensor):
    return {name: tensor}


def _no_dict(name, tensor):
    return tensor


def _nothing(name, tensor):
    return None


def _none(name, tensor):
    return {name: None}


def _array(name, tensor):
    return {name: tensor.numpy()}


def _objects(name, tensor):
    return {name: tensor.numpy().astype(object)}


def _not_numbers(name, tensor):
    return {name: torch.full(tensor.shape, float('nan'))}


def _another_name(name, tensor):
    return {5: tensor, None: tensor}


def _one_more(name, tensor):
    return {name: tensor, 5: tensor}


def _another_shape(name, tensor):
    return {name: tensor[:, :-1]}


def _sparse(name, tensor):
    return {name: tensor.to_sparse()}


def _without_values(name, tensor):
    return {name: tensor.to('meta')}


TENSORS = (_as_it_is, _no_dict, _nothing, _none, _array, _objects, _not_numbers, _another_name,
           _one_more, _another_shape, _sparse, _without_values)
