"""What the errors of a tensor say about their cause, and what to try first.

Every finding is read off one row of
:meth:`mmdet_bpu.analysis.quant_comparison.QuantComparison.tensors` by thresholds that stand here.
"""
import math
from typing import Any, Dict, List, Mapping, Optional, Sequence

POOR = 20.0
"""dB: noise of a tenth of the signal. int8 with a fitting range has 30 dB to 45 dB."""
CHANNEL_GAP = 12.0
"""dB from the SQNR of a typical channel to that of the tensor: a factor of 4 in amplitude."""
SATURATED = 1e-3
"""Share of elements outside the range that is more than tails."""
ZEROED, NEARLY_ALL = 0.5, 0.9
"""Shares of the values other than zero that become zero: a range far too wide for most of them.
Where nearly all do, a few values are all of the signal, and no ratio shows it."""

ADVICE = {
    'outlier channel': 'bpu.calibration.equalize, or a rule with dtype int16 for it',
    'range too wide': 'a rule with observer percentile for it; if most of it is zero still, with '
    'dtype int16 too, or with a fixed scale',
    'saturated': 'a rule with observer minmax for it, or dtype int16',
    'too few levels': 'a rule with dtype int16 for it',
    'extremes cut': 'nothing, where outputs and detections are well; else dtype int16 with '
    'observer minmax for it',
    'dead': 'nothing: quantization loses nothing here, but the tensor does no work',
}
"""Cause -> what to try, the cheapest first."""


HARMLESS = ('extremes cut', 'dead')
"""Causes that need no repair by themselves."""


def cause_of(row: Mapping[str, Any]) -> Optional[str]:
    """The likeliest cause of a tensor's own error; None where it is fine."""
    if row['rms_lsb'] == 0:
        return 'dead'
    whole, typical = row['sqnr_db'], row['channel_sqnr_db']
    poor = any(_below(ratio, POOR) for ratio in (whole, typical))
    if poor and row['saturated'] >= SATURATED:
        return 'saturated'
    if poor and row['saturated'] and not _below(row['inside_sqnr_db'], POOR):
        return 'extremes cut'
    if poor and None not in (whole, typical) and whole - typical >= CHANNEL_GAP:
        return 'outlier channel'
    if row['zeroed'] >= (ZEROED if poor else NEARLY_ALL):
        return 'range too wide'
    return 'too few levels' if poor else None


def _below(ratio: Optional[float], limit: float) -> bool:
    return ratio is not None and ratio < limit


def findings(rows: Sequence[Mapping[str, Any]]) -> List[Dict[str, Any]]:
    """Tensors that lose by themselves, the worst first: site, cause, advice, and their ratios."""
    found = []
    for row in rows:
        cause = cause_of(row)
        if cause is not None:
            found.append(dict(
                site=row['site'], cause=cause, try_first=ADVICE[cause], dtype=row['dtype'],
                sqnr_db=row['sqnr_db'], channel_sqnr_db=row['channel_sqnr_db'],
                saturated=row['saturated'], zeroed=row['zeroed']))
    return sorted(found, key=_severity)


def _severity(row: Mapping[str, Any]) -> float:
    if row['cause'] in HARMLESS:
        return math.inf
    return min(row[name] for name in ('sqnr_db', 'channel_sqnr_db') if row[name] is not None)
