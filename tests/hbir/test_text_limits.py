"""MLIR text is bounded and its structure checked: each refusal names the line."""
import os

import pytest

from mmdet_bpu.errors import BpuError
from mmdet_bpu.hbir.integer_program import program_from_module
from mmdet_bpu.hbir.text import parse_text, read_text
from mmdet_bpu.hbir.text_limits import MAX_NESTING, SPLAT_BUDGET, too_deep

TYPE = 'tensor<2x!qnt.uniform<si8:f32, 0.5>>'
RELU = f'"bpu.relu"(%{{}}) : ({TYPE}) -> {TYPE}'
LINES = ['module {', f'func.func @forward(%x: {TYPE} {{hbir.name = "x"}}) -> ({TYPE} '
         '{hbir.name = "y"}) {', '%a = ' + RELU.format('x'), '%y = ' + RELU.format('a'),
         f'return %y : {TYPE}', '}', '}']


def refused(lines, message):
    with pytest.raises(BpuError, match=message):
        parse_text('\n'.join(lines), 'm.mlir')


def test_the_text_that_is_changed_below_is_valid():
    assert len(program_from_module(parse_text('\n'.join(LINES))).instructions) == 2


def test_a_value_is_made_before_it_is_used():
    refused([*LINES[:2], LINES[3], LINES[2], *LINES[4:]],
            'm.mlir:3: bpu.relu: operand 0 is a value that is not made before')
    refused([*LINES[:3], '%y = ' + RELU.format('y'), *LINES[4:]], 'm.mlir:4: .*not made before')


def test_an_operation_of_another_dialect_is_refused():
    refused([*LINES[:2], 'module {', '}', *LINES[2:]], 'm.mlir:3: builtin.module: ')
    refused([*LINES[:3], f'"func.call"(%a) <{{callee = @forward}}> : ({TYPE}) -> {TYPE}',
             *LINES[3:]], 'm.mlir:4: ')


def test_a_module_is_one_function_with_one_block():
    refused(['module {', '}'], 'm.mlir:1: expected a module with one function, found 0')
    refused([*LINES[:6], *LINES[1:]], 'one function, found 2|redefinition|already')
    refused([*LINES[:5], '^bb1:', LINES[4], *LINES[5:]], 'expected one block')
    refused([*LINES[:4], *LINES[5:]], 'ends with return')
    refused([*LINES[:4], LINES[4], LINES[4], *LINES[5:]], 'm.mlir:5: func.return')


@pytest.mark.parametrize('opening', ['(', '[', '{', '<', 'module {', 'tuple<', '((('])
def test_nesting_is_refused_before_it_is_parsed(opening):
    refused([*LINES[:2], opening * 500, *LINES[2:]], f'm.mlir:3: .*deeper than {MAX_NESTING}')


def test_brackets_in_strings_comments_and_arrows_are_no_nesting():
    assert too_deep('"' + '(' * 500 + '" // ' + '[' * 500 + '\n' + '() -> () ' * 500) is None
    assert too_deep('<' * (MAX_NESTING + 1)) == MAX_NESTING


@pytest.mark.parametrize('constant', [
    'dense<0> : tensor<66000x66000xi8>', 'dense<1> : tensor<40000x40000xi8>',
    'dense<"0x00"> : tensor<2000000000xi8>', 'dense<0> : tensor<?x2xi8>',
    'dense<0> : tensor<' + '2x' * 17 + 'i8>'])
def test_a_few_bytes_do_not_become_a_large_constant(constant):
    type_ = constant.partition(' : ')[2].replace('xi8', 'xsi8')
    refused([*LINES[:2], f'%c = "bpu.constant"() <{{value = {constant}}}> : () -> {type_}',
             *LINES[2:]], 'm.mlir:3:.*(expected|take|static)')


def test_constants_of_one_value_are_bounded_together():
    size = SPLAT_BUDGET // 4
    lines = [f'%c{index} = "bpu.constant"() <{{value = dense<0> : tensor<{size}xi8>}}> : () -> '
             f'tensor<{size}xsi8>' for index in range(5)]
    refused([*LINES[:2], *lines, *LINES[2:]], 'm.mlir:7:.*constants of one value take')


@pytest.mark.parametrize('size', ['?', '1x?'])
def test_sizes_are_known(size):
    refused([line.replace('tensor<2x', f'tensor<{size}x') for line in LINES], 'm.mlir:')


@pytest.mark.parametrize('text', ['[1]', '{', '{"a": 1e999}', '[' * 500, '3', 'NaN'])
def test_metadata_are_a_json_table(text):
    lines = [f'module attributes {{bpu.metadata = "{text}"}} {{'.replace('"a"', '\\22a\\22'),
             *LINES[1:]]
    with pytest.raises(BpuError, match='bpu.metadata'):
        program_from_module(parse_text('\n'.join(lines)))


def test_a_name_is_a_string():
    with pytest.raises(BpuError, match='needs a hbir.name'):
        program_from_module(parse_text('\n'.join(LINES).replace('hbir.name = "x"',
                                                                'hbir.name = 3 : i64')))


def test_only_a_file_is_read(tmp_path):
    os.mkfifo(tmp_path / 'model.int.mlir')
    for path in (tmp_path / 'model.int.mlir', tmp_path, tmp_path / 'absent.mlir'):
        with pytest.raises(BpuError, match=path.name):
            read_text(path)
    (tmp_path / 'binary.mlir').write_bytes(b'\xff\xfe')
    with pytest.raises(BpuError, match='cannot read HBIR text from .*binary.mlir'):
        read_text(tmp_path / 'binary.mlir')
