"""Whether a BPU can run a program: every op against the limits of the march.

An *error* cannot run on the BPU. A *warning* runs, but not wholly on the BPU or not by the
letter of the manual. A *note* tells what the check itself rests on.
"""
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Iterator

from mmdet_bpu.compiler.limits import Limit, OpLimits, limits_of
from mmdet_bpu.compiler.march import UNITS_SOURCE, March, get_march
from mmdet_bpu.compiler.measures import measures_of
from mmdet_bpu.compiler.op_view import OpView, views_of_module, views_of_program
from mmdet_bpu.errors import BpuError


@dataclass(frozen=True)
class Finding:
    """One thing to know about an op on a march.

    Attributes:
        level: 'error', 'warning' or 'note'.
        op: Op name, '' when it concerns the whole program.
        site: Where in the model.
        unit: 'bpu', 'vpu', 'host', or the unit that takes over.
        rule: What is demanded.
        found: What the program has.
        source: Row of the table.
    """
    level: str
    op: str
    site: str
    unit: str
    rule: str
    found: str
    source: str

    def __str__(self) -> str:
        place = f' at {self.site}' if self.site else ''
        return f'{self.level}: {self.op}{place}: {self.rule}; found {self.found} [{self.source}]'

    def as_dict(self) -> dict[str, str]:
        """Plain form for reports."""
        return asdict(self)


def check_program(program_or_module, march: str) -> list[Finding]:
    """Check every op of a program against the limits of a march.

    Args:
        program_or_module: A :class:`~mmdet_bpu.program.program.Program` of the integer dialect, or
            an xDSL module with ``hbir`` ops and ``qnt.const_fake_quant``.
        march (str): March name.

    Returns:
        list[Finding]: Errors first, then warnings, then notes, each in program order.

    Raises:
        BpuError: Unknown march.
    """
    chosen = get_march(march)
    is_program = hasattr(program_or_module, 'instructions')
    views = (views_of_program if is_program else views_of_module)(program_or_module)
    findings = [finding for view in views for finding in _check_op(view, chosen)]
    findings += _host_notes(chosen)
    if chosen.note:
        findings.append(Finding('note', '', '', 'bpu', f'march {march}', chosen.note,
                                'mmdet_bpu.compiler.march'))
    rank = {'error': 0, 'warning': 1, 'note': 2}
    return sorted(findings, key=lambda finding: rank[finding.level])


def refuse_errors(findings: list[Finding], march: str) -> None:
    """Raise if the program cannot run on the march.

    Raises:
        BpuError: With the first errors, their sites and their sources.
    """
    errors = [finding for finding in findings if finding.level == 'error']
    if errors:
        shown = '\n  '.join(str(finding) for finding in errors[:10])
        more = f'\n  and {len(errors) - 10} more' if len(errors) > 10 else ''
        raise BpuError(f'{len(errors)} ops cannot run on {march}:\n  {shown}{more}')


def summarize(findings: list[Finding]) -> dict[str, int]:
    """Number of findings per level."""
    counts = Counter(finding.level for finding in findings)
    return {level: counts.get(level, 0) for level in ('error', 'warning', 'note')}


def _host_notes(march: March) -> list[Finding]:
    """That inputs come and outputs go as integers, where the march cannot make or take others."""
    steps = {'quantize': 'inputs are integers: the host makes them of real values',
             'dequantize': 'outputs are integers: the host makes real values of them'}
    return [Finding('note', step, '', 'host', rule, f'{march.name} has no unit for it', UNITS_SOURCE)
            for step, rule in steps.items() if step in march.host_steps]


def _check_op(view: OpView, march: March) -> Iterator[Finding]:
    limits = limits_of(view.op, march.name)
    if limits is None:
        yield Finding('error', view.op, view.site, 'bpu', 'an op that the march knows', view.op,
                      f'no row in the table of {march.name}')
        return
    if view.op.split('.', 1)[-1] in march.host_steps:
        yield Finding('error', view.op, view.site, 'host', 'an op that the host has to do, which '
                      'cannot be amid a program: deploy a detector without it, or for another '
                      'march', f'{march.name} has no unit for it', UNITS_SOURCE)
        return
    if limits.bpu is None:
        yield _not_on_bpu(view, limits)
        return
    measures = measures_of(view)
    for limit in limits.bpu:
        broken = _broken(limit, view, measures)
        if broken:
            rule, found = broken
            reason = f' ({limit.reason})' if limit.reason else ''
            yield Finding(limit.level, view.op, view.site, 'bpu', rule + reason, found,
                          limits.source())


def _not_on_bpu(view: OpView, limits: OpLimits) -> Finding:
    types = ', '.join(str(tensor.dtype) for tensor in view.operands.values())
    if limits.fallback:
        return Finding('warning', view.op, view.site, limits.fallback,
                       f'not wholly on the BPU: this op runs on {limits.fallback}', types,
                       limits.source())
    rule = 'no integer form on the BPU'
    if limits.vpu:
        rule += ' (its vector unit takes float16 only)'
    return Finding('error', view.op, view.site, 'bpu', rule, types,
                   limits.source('vpu' if limits.vpu else 'bpu'))


def _broken(limit: Limit, view: OpView, measures: dict) -> tuple[str, str] | None:
    """(rule, found) if the limit does not hold for the op, None if it does or is not known."""
    if limit.kind == 'dtype':
        tensor = _operand(view, limit.subject)
        if tensor is None or tensor.dtype is None or tensor.dtype in limit.allowed:
            return None
        return f'{limit.subject} must be {" or ".join(limit.allowed)}', tensor.dtype
    if limit.kind in ('same_dtype', 'not_both_int16'):
        names = limit.subject.split(',')
        types = [tensor.dtype for tensor in map(view.operands.get, names) if tensor]
        if len(types) < 2 or None in types:
            return None
        if limit.kind == 'same_dtype' and types[0] != types[1]:
            return f'{names[0]} and {names[1]} must be of one type', ' and '.join(types)
        if limit.kind == 'not_both_int16' and types == ['si16', 'si16']:
            return f'{names[0]} and {names[1]} cannot both be si16', 'si16 and si16'
        return None
    if limit.subject not in measures:
        return None
    measured = measures[limit.subject]
    values = measured if isinstance(measured, list) else [measured]
    if limit.kind == 'odd_or_two':
        bad = [value for value in values if value % 2 == 0 and value != 2]
        return (f'{limit.subject} must be odd or 2', str(bad)) if bad else None
    low, high = limit.allowed
    if all((low is None or v >= low) and (high is None or v <= high) for v in values):
        return None
    bounds = f'[{"-inf" if low is None else low}, {"inf" if high is None else high}]'
    return f'{limit.subject} in {bounds}', str(measured)


def _operand(view: OpView, name: str):
    if name == 'output':
        return view.results[0] if view.results else None
    return view.operands.get(name)
