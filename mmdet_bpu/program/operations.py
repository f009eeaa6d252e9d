"""Signatures of the integer operations: data only.

What they compute stands in the project's ``docs/numerics.md``, what they demand of shapes and
values in :mod:`mmdet_bpu.program.operation_rules`. The notation is that of
:mod:`mmdet_bpu.program.signatures`; the IR and programs read from a file are verified against it.
"""
from mmdet_bpu.program.signatures import OpSpec, parse_table

PREFIX = 'bpu.'
"""Of the name of every operation in the IR and in a program."""

ELEMENT_CLASSES = {'q': 'si8 si16 si32', 'all': 'si8 si16 si32 i1'}

TABLE = '''
constant = -> output: all {value: elements, site?: str}
image_convert = y: ui8[4], uv~: ui8[4] -> output: si8[4] {site?: str}
image_preprocess = image: si8[4] -> output: si8[4] {matrix: ints, offset: ints, low: ints,
    shift: i64, levels: ints, site?: str}
conv2d = input: si8|si16[4], weight: si8|si16[4], bias: si32[1], residual~: q[4] -> output: q[4]
    {stride: ints[2], pad: ints[4], dilation: ints[2], groups: i64, multiplier: ints, shift: ints,
    residual_multiplier?: ints, residual_shift?: ints, relu?: bool, site?: str}
deform_conv2d = input: si8|si16[4], weight: si8[4], bias: si32[1], offset: si16[4],
    mask~: si8[4] -> output: q[4] {stride: ints[2], pad: ints[4], dilation: ints[2], groups: i64,
    offset_groups: i64, fraction_bits: i64, sample_bits: i64, offset_multiplier: ints,
    offset_shift: ints, multiplier: ints, shift: ints, relu?: bool, site?: str}
conv_transpose2d = input: si8|si16[4], weight: si8|si16[4], bias: si32[1], residual~: q[4] ->
    output: q[4] {stride: ints[2], pad: ints[4], dilation: ints[2], groups: i64, multiplier: ints,
    shift: ints, residual_multiplier?: ints, residual_shift?: ints, relu?: bool, site?: str}
linear = input: si8|si16, weight: si8|si16[2], bias: si32[1], residual~: q -> output: q
    {multiplier: ints, shift: ints, residual_multiplier?: ints, residual_shift?: ints,
    relu?: bool, site?: str}
matmul = lhs: si8|si16, rhs: si8|si16 -> output: q {multiplier: ints, shift: ints, site?: str}
add sub = lhs: q, rhs: q -> output: q {lhs_multiplier: ints, lhs_shift: ints,
    rhs_multiplier: ints, rhs_shift: ints, guard_bits: i64, relu?: bool, site?: str}
mul = lhs: q, rhs: q -> output: q {multiplier: ints, shift: ints, site?: str}
requantize = input: q -> output: q {multiplier: ints, shift: ints, relu?: bool, site?: str}
table = input: si8|si16 -> output: si8|si16 {entries: ints, segment_start?: ints,
    segment_shift?: ints, site?: str}
relu = input: q -> output: q {site?: str}
reduce_sum = input: q -> output: q {dims: ints, multiplier: ints, shift: ints, site?: str}
reduce_max reduce_min = input: q -> output: q {dims: ints, site?: str}
max_pool = input: q[4] -> output: q[4] {kernel: ints[2], stride: ints[2], pad: ints[4],
    dilation: ints[2], ceil_mode: bool, site?: str}
avg_pool = input: si8|si16[4] -> output: q[4] {kernel: ints[2], stride: ints[2],
    multiplier: ints, shift: ints, site?: str}
grid_sample = input: si8[4], grid: si16[4] -> output: si8[4] {x_multiplier: ints, x_shift: ints,
    x_offset: i64, y_multiplier: ints, y_shift: ints, y_offset: i64, fraction_bits: i64,
    padding: str, site?: str}
resize = input: si8[4] -> output: si8[4] {size: ints[2], start: ints[2], step: ints[2],
    position_bits: i64, fraction_bits: i64, mode: str, site?: str}
topk = input: q -> values: q, indices: si32 {k: i64, dim: i64, site?: str}
gather = input: q, indices: si32 -> output: q {dim: i64, site?: str}
max min = lhs: q, rhs: q -> output: q {site?: str}
positive not_negative = input: q -> output: i1 {site?: str}
where = mask: i1, input: q, other~: q -> output: q {fill?: i64, site?: str}
reshape = input: all -> output: all {shape: ints, site?: str}
transpose = input: all -> output: all {dims: ints, site?: str}
slice = input: all -> output: all {begin: ints, end: ints, step: ints, site?: str}
concat = inputs*: all -> output: all {dim: i64, site?: str}
flip = input: all -> output: all {dims: ints, site?: str}
roll = input: all -> output: all {shifts: ints, dims: ints, site?: str}
tile = input: all -> output: all {multiples: ints, site?: str}
pad = input: all -> output: all {begin: ints, end: ints, value: i64, site?: str}
'''

OPERATIONS: dict[str, OpSpec] = parse_table(TABLE, ELEMENT_CLASSES)
"""Name without prefix -> signature."""
