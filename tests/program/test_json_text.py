"""JSON of a file: what json.loads takes and a reader cannot use is refused."""
import json

import pytest

from mmdet_bpu.program.json_text import MAX_DEPTH, read_json

VALUE = {'a': [1, -2.5, None, True, 'text "\\[{ é', {}], 'b': -(1 << 63), 'c': (1 << 63) - 1}


@pytest.mark.parametrize('options', [{}, dict(ensure_ascii=False), dict(indent=1)])
def test_plain_documents_are_read(options):
    assert read_json(json.dumps(VALUE, **options).encode()) == VALUE


def test_brackets_in_strings_are_no_nesting():
    value = ['[' * 500, '\\"' + '{' * 500]
    assert read_json(json.dumps(value)) == value


def test_nesting_is_allowed_to_the_limit():
    assert read_json('[' * MAX_DEPTH + ']' * MAX_DEPTH)


@pytest.mark.parametrize('text, message', [
    ('[' * (MAX_DEPTH + 1) + ']' * (MAX_DEPTH + 1), 'nested'), ('[' * 100_000, 'nested'),
    ('{"a":' * 500 + '1' + '}' * 500, 'nested'), ('[1e999]', 'finite'), ('NaN', 'finite'),
    ('-Infinity', 'finite'), ('9223372036854775808', 'int64'), ('9' * 5000, 'int64'),
    ('{"a": 1, "a": 2}', "'a' is there twice"), ('"\\ud800"', 'surrogates'),
    (b'"\xff"', 'decode'), ('', 'Expecting'), ('[1, 2', 'delimiter'), ('{1: 2}', 'property name')])
def test_other_text_is_a_value_error(text, message):
    with pytest.raises(ValueError, match=message):
        read_json(text)


def test_a_surrogate_pair_is_a_character():
    assert read_json('"\\ud83d\\ude00"') == '\N{GRINNING FACE}'
