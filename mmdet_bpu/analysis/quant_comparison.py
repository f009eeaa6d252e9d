"""Float against quantized, and quantized against integers, tensor by tensor over images."""
from collections import defaultdict
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from torch import Tensor
from xdsl.dialects.builtin import ModuleOp

from mmdet_bpu.analysis.level_histograms import LevelHistograms
from mmdet_bpu.analysis.network_parts import part_of
from mmdet_bpu.analysis.qat_vs_int import compare_qat_int
from mmdet_bpu.analysis.rounding_walk import RoundingWalk, grid_of
from mmdet_bpu.analysis.tensor_errors import Distance, TensorErrors
from mmdet_bpu.hbir.builder import site_of
from mmdet_bpu.hbir.passes.conversion import Conversion
from mmdet_bpu.hbir.qnt_dialect import fake_quant_range, fake_quant_scale
from mmdet_bpu.hbir.types import value_type

Outputs = Dict[str, Tensor]


class QuantComparison:
    """Gathers, image by image, what quantization did to every tensor of a network.

    Args:
        conversion (Conversion): Of the network's HBIR to integers.
        rows (Sequence[dict]): Report of its quantized graph: which op and rule each site has.
        floats (ModuleOp, optional): The float side's HBIR, if it has weights of its own. Defaults
            to the same weights.

    Raises:
        BpuError: ``floats`` is another network.
    """

    def __init__(self, conversion: Conversion, rows: Sequence[dict],
                 floats: Optional[ModuleOp] = None) -> None:
        self.conversion = conversion
        self.walk = RoundingWalk(conversion.module, floats)
        self.grids = [grid_of(op) for op in self.walk.roundings]
        self.errors = [TensorErrors(grid) for grid in self.grids]
        self.histograms = [LevelHistograms(grid) for grid in self.grids]
        self.outputs: Dict[str, Distance] = defaultdict(Distance)
        self.images = 0
        self._described = {row['site']: row for row in rows}
        self._integers: Dict[str, List[dict]] = defaultdict(list)

    def add(self, image: Tensor) -> Tuple[Outputs, Outputs, Optional[float]]:
        """Take in one image.

        Args:
            image (Tensor): Normalised float32 image (1, H, W, C).

        Returns:
            tuple[dict, dict, float | None]: Outputs by name, of the float model and of the
            quantized one; SQNR of this image over all of them, dB, the worst of the outputs.

        Raises:
            BpuError: The image has not the shape of the input.
        """

        def seen(number: int, reference: Tensor, given: Tensor, rounded: Tensor) -> None:
            self.errors[number].add(self.images, reference, given, rounded)
            self.histograms[number].add(given)

        floats, quantized = self.walk.run(image, seen)
        ratios = [self.outputs[name].add(floats[name].double(), quantized[name].double())
                  for name in floats]
        self.images += 1
        return floats, quantized, min((r for r in ratios if r is not None), default=None)

    def add_integers(self, image: Tensor) -> None:
        """Compare the integers of one image op by op with the quantized model's, on equal inputs."""
        result = compare_qat_int(self.conversion, image)
        seen: Dict[str, int] = defaultdict(int)
        for row in result['ops']:
            number = seen[row['site']]
            seen[row['site']] += 1
            known = self._integers[row['site']]
            if number == len(known):
                known.append(dict(elements=0, differing=0, int_max_lsb=0))
            known[number]['elements'] += row['elements']
            known[number]['differing'] += row['differing']
            known[number]['int_max_lsb'] = max(known[number]['int_max_lsb'], row['max_lsb'])

    def tensors(self) -> List[Dict[str, Any]]:
        """A row per tensor in the graph's order; see :meth:`TensorErrors.row`.

        Besides: ``int_max_lsb`` and ``int_differing_share``, of integers against the quantized
        model op by op, where :meth:`add_integers` saw the tensor.
        """
        found, seen = [], defaultdict(int)
        for index, op in enumerate(self.walk.roundings):
            site = site_of(op)
            known = self._described.get(site, {})
            row = dict(index=index, site=site, part=part_of(site), op=known.get('op', ''),
                       shape=list(value_type(op.results[0]).shape), dtype=dtype_of(op),
                       scale=self.grids[index].scale, rule=known.get('rule', ''),
                       **self.errors[index].row())
            row.update(self._integer_columns(site, seen[site]))
            seen[site] += 1
            found.append(row)
        return found

    def _integer_columns(self, site: str, number: int) -> Dict[str, Any]:
        rows = self._integers.get(site, [])
        if number >= len(rows):
            return dict(int_max_lsb=None, int_differing_share=None)
        row = rows[number]
        return dict(int_max_lsb=row['int_max_lsb'],
                    int_differing_share=row['differing'] / max(row['elements'], 1))

    def constants(self) -> List[Dict[str, Any]]:
        """A row per weight and other constant: its SQNR and that of its worst channel, dB."""
        return [_constant_row(op, before, after) for op, before, after in self.walk.constants()]

    def output_rows(self) -> List[Dict[str, Any]]:
        """A row per output: distance of the quantized model from the float one."""
        return [distance_row(name, distance) for name, distance in self.outputs.items()]


def dtype_of(op: Any) -> str:
    """``int8`` or ``int16``, of a fake quantizer."""
    return f'int{fake_quant_scale(op)[0]}'


def distance_row(name: str, distance: Distance) -> Dict[str, Any]:
    """Name, SQNR in dB, cosine, and the largest difference in the tensor's own unit."""
    return dict(output=name, sqnr_db=distance.sqnr, cosine=distance.cosine,
                max_difference=distance.largest)


def _constant_row(op: Any, before: Tensor, after: Tensor) -> Dict[str, Any]:
    bits, scale, axis = fake_quant_scale(op)
    low, high = fake_quant_range(bits, False)
    before, after = before.double(), after.double()
    whole, channels = Distance(), []
    whole.add(before, after)
    if axis is not None:
        for x, y in zip(before.unbind(axis), after.unbind(axis)):
            channel = Distance()
            channel.add(x, y)
            channels.append(channel)
    alive = [channel for channel in channels if channel.signal]
    ratios = [channel.sqnr for channel in alive if channel.sqnr is not None]
    shape = (1, ) * (axis or 0) + (-1, ) + (1, ) * (before.dim() - (axis or 0) - 1)
    steps = before.new_tensor(scale).view(shape) if axis is not None else scale
    levels = before / steps
    beyond = ((levels < low - 0.5) | (levels > high + 0.5)).double().mean().item()
    return dict(site=site_of(op), part=part_of(site_of(op)), dtype=f'int{bits}',
                shape=list(before.shape), per_channel=axis is not None, sqnr_db=whole.sqnr,
                worst_channel_sqnr_db=min(ratios, default=None), cosine=whole.cosine,
                saturated=beyond, dead_channels=len(channels) - len(alive))


def worst(rows: Sequence[Mapping[str, Any]], column: str, count: int) -> List[Mapping[str, Any]]:
    """Rows with the lowest values of a column, the lowest first; rows without one are left out."""
    having = [row for row in rows if row.get(column) is not None]
    return sorted(having, key=lambda row: row[column])[:count]
