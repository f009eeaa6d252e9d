"""Register tiles of an integer matrix product, on the machine's integer dot-product unit.

A tile adds rows x columns of int32 accumulators over all K: it broadcasts a few neighbouring
values of one row of A and multiplies them with as many rows of a packed panel of B. Each
:class:`Unit` is one instruction (or pair) that does that for a whole vector:

====================  ================  =============  =====================================
unit                  values of A       per 32 bits    instruction
====================  ================  =============  =====================================
``avx2``              int16             2              vpmaddwd + vpaddd, 256 bits
``avx512``            int16             2              vpmaddwd + vpaddd, 512 bits
``avx512_vnni``       int16             2              vpdpwssd, 512 bits
``avx512_vnni_int8``  uint8             4              vpdpbusd, 512 bits
====================  ================  =============  =====================================

Sums are taken modulo 2**32, so an accumulator that the contract keeps within int32 is exact
whatever the order. A product of two int16 pairs fits int32 but for (-32768)**2 * 2, which needs
int16 on both sides: the contract has no such product. The saturating forms (vpmaddubsw) are not
used. uint8 stands for int8 plus 128; the caller takes 128 times the sum of the weights off.
"""
from dataclasses import dataclass

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

INT32 = ir.IntType(32)


@dataclass(frozen=True)
class Unit:
    """One way of multiplying and adding; see the table above.

    Attributes:
        name (str): As in the table.
        features (tuple[str, ...]): What the processor must have, in LLVM's names.
        lanes (int): int32 accumulators of a vector.
        depth (int): Values of A, side by side, that 32 bits hold.
        rows (int): Rows of a tile: as many as the registers hold accumulators for.
        vectors (int): Vectors of columns in a tile.
        multiply (str): LLVM intrinsic of the multiplication.
        adds (bool): Whether it takes the accumulator too.
    """
    name: str
    features: tuple[str, ...]
    lanes: int
    depth: int
    rows: int
    vectors: int
    multiply: str
    adds: bool

    @property
    def columns(self) -> int:
        """Columns of a tile and of a packed panel."""
        return self.lanes * self.vectors


UNITS = {unit.name: unit for unit in (
    Unit('avx512_vnni_int8', ('avx512bw', 'avx512vnni'), 16, 4, 12, 2,
         'llvm.x86.avx512.vpdpbusd.512', True),
    Unit('avx512_vnni', ('avx512bw', 'avx512vnni'), 16, 2, 12, 2,
         'llvm.x86.avx512.vpdpwssd.512', True),
    Unit('avx512', ('avx512bw', ), 16, 2, 12, 2, 'llvm.x86.avx512.pmaddw.d.512', False),
    Unit('avx2', ('avx2', ), 8, 2, 6, 2, 'llvm.x86.avx2.pmadd.wd', False),
)}


def make_tile(unit: Unit, rows: int):
    """A numba intrinsic ``tile(a, row_words, panel, depth_words, c, row_columns)``.

    Args of the intrinsic: address of the first row of A; words (32 bits) from one row to the next;
    address of the packed panel ``(depth_words, columns)`` of 32-bit words; their number, at least
    1; address of the first int32 accumulator; accumulators from one row to the next.
    """

    @intrinsic
    def tile(_, a, row_words, panel, depth_words, c, row_columns):
        signature = types.void(types.uintp, types.intp, types.uintp, types.intp, types.uintp,
                               types.intp)

        def codegen(context, builder, _, arguments):
            _emit_tile(builder, unit, rows, *arguments)
            return context.get_dummy_value()

        return signature, codegen

    return tile


def _emit_tile(builder, unit: Unit, rows: int, a, row_words, panel, depth_words, c,
               row_columns) -> None:
    index = depth_words.type
    vector = ir.VectorType(INT32, unit.lanes)
    multiply = _multiply(builder, unit, vector)
    a_rows = [_element(builder, a, INT32, builder.mul(row_words, index(row)))
              for row in range(rows)]
    places = [builder.bitcast(
        _element(builder, c, INT32, builder.add(builder.mul(row_columns, index(row)),
                                                index(part * unit.lanes))),
        vector.as_pointer()) for row in range(rows) for part in range(unit.vectors)]
    start = [builder.load(place, align=4) for place in places]

    before = builder.block
    loop, done = (builder.append_basic_block(name) for name in ('depth', 'stored'))
    builder.branch(loop)
    builder.position_at_end(loop)
    word = builder.phi(index)
    word.add_incoming(index(0), before)
    sums = [builder.phi(vector) for _ in start]
    for total, first in zip(sums, start):
        total.add_incoming(first, before)
    columns = [builder.load(builder.bitcast(_element(
        builder, panel, INT32, builder.add(builder.mul(word, index(unit.columns)),
                                           index(part * unit.lanes))), vector.as_pointer()),
        align=4) for part in range(unit.vectors)]
    results = []
    for row in range(rows):
        value = builder.load(builder.gep(a_rows[row], [word]), align=1)
        spread = builder.insert_element(ir.Constant(vector, ir.Undefined), value, INT32(0))
        spread = builder.shuffle_vector(
            spread, ir.Constant(vector, ir.Undefined),
            ir.Constant(ir.VectorType(INT32, unit.lanes), [0] * unit.lanes))
        for part in range(unit.vectors):
            results.append(multiply(sums[row * unit.vectors + part], spread, columns[part]))
    following = builder.add(word, index(1))
    word.add_incoming(following, loop)
    for total, result in zip(sums, results):
        total.add_incoming(result, loop)
    builder.cbranch(builder.icmp_signed('<', following, depth_words), loop, done)
    builder.position_at_end(done)
    for place, result in zip(places, results):
        builder.store(result, place, align=4)


def _element(builder, address, element, offset):
    """Pointer to an element behind an address given as an integer."""
    return builder.gep(builder.inttoptr(address, element.as_pointer()), [offset])


def _multiply(builder, unit: Unit, vector: ir.VectorType):
    """The function ``(sum, a, b) -> sum + a . b`` on vectors of 32-bit words."""
    if unit.adds:
        signature = ir.FunctionType(vector, [vector] * 3)
    else:
        pairs = ir.VectorType(ir.IntType(16), 2 * unit.lanes)
        signature = ir.FunctionType(vector, [pairs, pairs])
    function = cgutils.get_or_insert_function(builder.module, signature, unit.multiply)
    if unit.adds:
        return lambda total, a, b: builder.call(function, [total, a, b])
    return lambda total, a, b: builder.add(
        total, builder.call(function, [builder.bitcast(a, pairs), builder.bitcast(b, pairs)]))
