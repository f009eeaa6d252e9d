"""Mutations of MLIR text: tokens and lines moved, lost or repeated, and pieces that do harm."""
import random
import re
from typing import Callable

_TOKEN = re.compile(r'"(?:[^"\\\n]|\\.)*"|[%@#!]?[\w.$-]+|->|\s+|.', re.DOTALL)

HOSTILE = [
    '(' * 500, '[' * 500 + ']' * 500, '{' * 60, 'module {' * 500, '<' * 300, 'tuple<' * 200,
    'tensor<' + '1x' * 500 + 'si8>', 'tensor<100000x100000x100000xsi8>', 'tensor<?x?xsi8>',
    'tensor<-1xsi8>', 'tensor<*xsi8>', 'tensor<99999999999999999999xf32>', 'tensor<0x3xsi8>',
    'dense<0> : tensor<70000x70000xsi8>', 'dense<1.0> : tensor<30000x30000xf32>',
    'dense<"0x00"> : tensor<2000000000xi8>', 'dense<[1, 2, 3]> : tensor<3xi1>',
    'dense<300> : tensor<2xsi8>', 'dense<> : tensor<0xsi8>', 'dense<"0xzz"> : tensor<1xi8>',
    'dense<[[1], [2, 3]]> : tensor<2x1xi64>', 'sparse<0, 1> : tensor<4xi8>',
    'dense_resource<x> : tensor<4xi8>', 'array<i64: 99999999999999999999>', 'array<i8: 300>',
    'array<i64: -9223372036854775808>', 'array<f32: 1>', 'array<i64>', '99999999999999999999 : i64',
    '300 : i8', '-1', '1.0e999', '0x7FF0000000000000 : f64', 'i20000', 'i0', 'i99999999999',
    'index', 'f80', 'bf16', 'none', '!qnt.uniform<si8:f32, 0.0>', '!qnt.uniform<si8:f32, -1.0>',
    '!qnt.uniform<si8:f32, 1.0e400>', '!qnt.uniform<si8:f32:9, {0.1, 0.2}>',
    '!qnt.uniform<si8:f32:0, {}>', '!qnt.uniform<f32:f32, 0.1>', '!other.type<1>', '#other.attr',
    '#hbdk<InterpolationMode nothing>', '%undefined', '%0', '%0#7', '^bb0', '@forward', '@other',
    '"bpu.magic"', '"hbir.magic"', '"func.call"', '"builtin.module"', '"builtin.unregistered"',
    'func.call @forward()', 'func.func private @g()', 'loc(unknown)', 'loc("x"("y"))', 'loc(#loc)',
    '"\\00"', '"\\', '"' + 'x' * 20_000 + '"', '//', '/*', '{-#', 'true', 'unit',
    'affine_map<(d0) -> (d0)>', 'strided<[1], offset: 0>', 'vector<4xi8>', 'memref<4xi8>', 'complex<f32>', '(f32) -> f32',
    'opaque<"a", "0x00"> : tensor<1xi8>', '\0', '\u200b', 'é', '\ufeff', '\r', '\x0b']


def mutated(text: str, rng: random.Random) -> tuple[str, str]:
    """Text with one thing changed, and what was changed in words."""
    change: Callable = rng.choice([_tokens, _tokens, _tokens, _lines, _hostile, _hostile])
    return change(text, rng)


def restyled(text: str, rng: random.Random) -> tuple[str, str]:
    """Other text of the same meaning: blanks, comments, names of values."""
    lines = text.split('\n')
    if rng.random() < 0.5:
        for _ in range(rng.randint(1, 5)):
            lines.insert(rng.randrange(len(lines)), rng.choice(['', '  // a comment', '\t ']))
        return '\n'.join(lines), 'blank lines and comments'
    number = rng.randrange(1000)
    return re.sub(r'%(\w+)', rf'%n{number}_\1', text), 'values called otherwise'


def _tokens(text: str, rng: random.Random) -> tuple[str, str]:
    tokens = _TOKEN.findall(text)
    # A constant's hexadecimal is one token of many.
    place = rng.choice([index for index, token in enumerate(tokens) if not token.isspace()])
    token = tokens[place]
    change = rng.choice(['lose', 'repeat', 'swap', 'borrow', 'nudge', 'nudge'])
    if change == 'lose':
        tokens[place] = ''
    elif change == 'repeat':
        tokens[place] = f'{token} {token}' * rng.choice([1, 1, 200])
    elif change == 'swap':
        other = rng.randrange(len(tokens))
        tokens[place], tokens[other] = tokens[other], token
    elif change == 'borrow':
        tokens[place] = rng.choice([part for part in tokens if not part.isspace()])
    else:
        tokens[place] = re.sub(r'\d+', lambda match: _nudged(match[0], rng), token)
    return ''.join(tokens), f'{change} {token[:40]!r}, which becomes {tokens[place][:60]!r}'


def _nudged(digits: str, rng: random.Random) -> str:
    value = int(digits)
    return str(rng.choice([value + 1, max(value - 1, 0), value * 10, value * 100_000, 0, 1 << 31,
                           1 << 40, 1 << 63, 1 << 64]))


def _lines(text: str, rng: random.Random) -> tuple[str, str]:
    lines = text.split('\n')
    place, other = (rng.randrange(len(lines)) for _ in range(2))
    change = rng.choice(['lose', 'repeat', 'swap', 'move'])
    words = f'{change} line {place + 1}'
    if change == 'lose':
        del lines[place]
    elif change == 'repeat':
        lines[place:place] = [lines[place]] * rng.choice([1, 50])
    elif change == 'swap':
        lines[place], lines[other] = lines[other], lines[place]
    else:
        lines.insert(other, lines.pop(place))
    return '\n'.join(lines), words


def _hostile(text: str, rng: random.Random) -> tuple[str, str]:
    tokens = _TOKEN.findall(text)
    piece = rng.choice(HOSTILE)
    places = [index for index, token in enumerate(tokens) if not token.isspace()]
    if piece.startswith(('dense', 'array', 'tensor', '!')):  # where one stood
        prefix = piece.split('<')[0]
        places = [index for index in places if tokens[index] == prefix] or places
        place = rng.choice(places)
        end = place + 1 + rng.choice([0, 3, 7])
        tokens[place:end] = [piece]
    else:
        place = rng.choice(places)
        tokens[place] = piece if rng.random() < 0.7 else f'{tokens[place]} {piece}'
    return ''.join(tokens), f'{piece[:40]!r} as token {place}'
