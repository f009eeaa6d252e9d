"""What a limit on an op is, and how to look one up: ``limits_of(op, march)``.

The rows themselves are data in :mod:`mmdet_bpu.compiler.limit_table`. A limit speaks about an
operand's element type or about a *measured quantity* of the op (``'KH*KW*C'``), which
:mod:`mmdet_bpu.compiler.measures` computes; so the table holds no code.
"""
from dataclasses import dataclass
from functools import lru_cache

from mmdet_bpu.compiler.limit_table import (BPU_ROWS, MANUAL, FALLBACKS,
                                            NASH_P_BPU_ROWS, ROW_NAMES, UNSUPPORTED_BPU,
                                            VPU_FLOAT16)
from mmdet_bpu.compiler.march import get_march


@dataclass(frozen=True)
class Limit:
    """One constraint.

    Attributes:
        kind: 'dtype' (``allowed`` are element types), 'range' (``allowed`` is (low, high), None =
            open), 'same_dtype' or 'not_both_int16' (``subject`` names two operands), or
            'odd_or_two'.
        subject: Operand or measured quantity.
        allowed: See ``kind``.
        level: 'error' or 'warning' when it does not hold.
        reason: Why a broken limit only warns, '' otherwise.
    """
    kind: str
    subject: str
    allowed: tuple = ()
    level: str = 'error'
    reason: str = ''


@dataclass(frozen=True)
class OpLimits:
    """All limits of one op on one march.

    Attributes:
        op: ``hbir.`` op name.
        march: March whose published table was read.
        bpu: Limits on the BPU's integer units, None if the op has none there.
        vpu: Whether the vector unit takes the op, in float16 only.
        fallback: Where the op runs if ``bpu`` is None and the model still compiles, else ''.
    """
    op: str
    march: str
    bpu: tuple[Limit, ...] | None
    vpu: bool
    fallback: str

    def source(self, unit: str = 'bpu') -> str:
        """Where the row comes from, for messages and reports."""
        row = ROW_NAMES.get(self.op, self.op)
        return f'{MANUAL}, {self.march}, row {row}, unit {unit.upper()}'


@lru_cache(maxsize=None)
def limits_of(op: str, march: str) -> OpLimits | None:
    """Limits of an op.

    Args:
        op (str): Op name, e.g. 'hbir.conv2d' or 'bpu.table'.
        march (str): March name.

    Returns:
        OpLimits | None: None if the published table does not know the op.

    Raises:
        BpuError: Unknown march.
    """
    table = get_march(march).limits_of
    name = op.split('.', 1)[-1]
    vpu = name in VPU_FLOAT16[table]
    if name in UNSUPPORTED_BPU:
        return OpLimits(op, table, None, vpu, FALLBACKS.get(name, ''))
    rows = BPU_ROWS.get(name)
    if table == 'nash-p':
        rows = NASH_P_BPU_ROWS.get(name, rows)
    if rows is None:
        return None
    return OpLimits(op, table, tuple(Limit(*row) for row in rows), vpu, '')
