"""What a calibration saw, in its checkpoint: other scales can be chosen of it without an image."""
from dataclasses import dataclass
from typing import Any, Dict, Mapping

import xxhash
from torch import Tensor, nn

from mmdet_bpu.errors import BpuError, first_names
from mmdet_bpu.graph.computed import computed_by, first_difference
from mmdet_bpu.quantization.quantized_detector import checksum, public_name
from mmdet_bpu.quantization.repairs import ON_IMAGES, repairs_of, repairs_on_images
from mmdet_bpu.quantization.state import quantization_of
from mmdet_bpu.quantization.statistics import Statistics

VERSION = 2
KNOWN = 1, VERSION
"""Version 1 does not say what the graph computed."""
KEY = 'bpu_statistics'
"""Where a checkpoint keeps it."""


def to_plain(model: nn.Module) -> Dict[str, Any]:
    """Plain data of what a calibrated detector has seen.

    With it goes what it holds for: the weights, how they were repaired, and what the graph computes with
    them. Structure and input stage are in the quantized graph beside it.
    """
    quant = quantization_of(model)
    return dict(version=VERSION, weights=_weights_of(model), repairs=repairs_of(quant.settings),
                graph=computed_by(quant.networks), tensors=quant.statistics,
                checksum=_checksum(quant.statistics))


def _weights_of(model: nn.Module) -> str:
    return f'{checksum(model):016x}'


@dataclass(frozen=True)
class SavedStatistics:
    """What a checkpoint says of a calibration.

    Args:
        plain (dict): See :func:`to_plain`.
        path (str): The file, for messages.
    """
    plain: Dict[str, Any]
    path: str

    @classmethod
    def of(cls, checkpoint: Mapping[str, Any], path: str) -> 'SavedStatistics':
        """The statistics in a checkpoint.

        Raises:
            BpuError: There are none, they are of a version that is not known here, or damaged.
        """
        plain = checkpoint.get(KEY)
        if plain is None:
            raise BpuError(f'checkpoint {path} holds no statistics of a calibration: expected one of '
                           'stage \'calibration\', written by this version; calibrate again')
        found = plain.get('version') if isinstance(plain, Mapping) else None
        if found not in KNOWN:
            raise BpuError(f'checkpoint {path}: its statistics are of version {found}, this '
                           f'mmdet_bpu reads {VERSION}; calibrate again')
        fields = dict(weights=str, repairs=Mapping, tensors=Mapping, **(
            dict(graph=list, checksum=str) if found == VERSION else {}))
        if not all(isinstance(plain.get(name), kind) for name, kind in fields.items()) \
                or not all(map(_is_whole, plain['tensors'].values())) \
                or found == VERSION and plain['checksum'] != _checksum(plain['tensors']):
            raise BpuError(f'checkpoint {path}: its statistics are damaged; calibrate again')
        return cls(dict(plain), path)

    def give(self, model: nn.Module) -> None:
        """Let the observers of a prepared detector have seen what the calibration saw.

        Raises:
            BpuError: The detector was repaired otherwise or is to be by images, has other weights, computes
                something else, has a tensor that was not seen, or whose observer asks for another number of bins or
                reads no statistics.
        """
        repairs, found = repairs_of(quantization_of(model).settings), _weights_of(model)
        for name in {**self.plain['repairs'], **repairs}:
            before, now = (each.get(name, False) for each in (self.plain['repairs'], repairs))
            if before != now or isinstance(before, bool) != isinstance(now, bool):  # 0 is not False
                self._refuse(f'repairs: bpu.calibration.{name} was {before}, now it is {now}')
        if repairs_on_images(quantization_of(model).settings):
            self._refuse(f'repairs: {" and ".join(ON_IMAGES)} of bpu.calibration need images')
        if found != self.plain['weights']:
            self._refuse(f'weights: their checksum was {self.plain["weights"]}, now it is {found}')
        if 'graph' in self.plain:
            difference = first_difference(self.plain['graph'],
                                          computed_by(quantization_of(model).networks))
            if difference is not None:
                self._refuse(f'graph: {difference}')
        tensors = self.plain['tensors']
        quantizers = {public_name(key): each
                      for key, each in quantization_of(model).quantizers.items()}
        unseen = [name for name in quantizers if name not in tensors]
        if unseen:
            self._refuse(f'tensors: it has not seen {first_names(unseen)}')
        for name, quantizer in quantizers.items():
            statistics = quantizer.statistics
            if statistics is None:
                self._refuse(f'observers: {type(quantizer.observer).__name__} of {name} reads no '
                             'statistics, only images')
            if statistics.bins != tensors[name]['bins']:
                self._refuse(f'observers: that of {name} asks for {statistics.bins} bins, and '
                             f'{tensors[name]["bins"]} were counted')
            statistics.take(tensors[name])
            quantizer.seen.fill_(int(len(tensors[name]['extremes']) > 0))

    def _refuse(self, difference: str) -> None:
        raise BpuError(f'the statistics of {self.path} do not fit this model, by its {difference}. '
                       'Restore what has changed, or calibrate again')


def _is_whole(tensor: Any) -> bool:
    """Whether ``tensor`` is what :meth:`Statistics.as_plain` gives."""
    if not isinstance(tensor, Mapping) or set(tensor) != set(Statistics().as_plain()):
        return False
    bins, counts, extremes = tensor['bins'], tensor['counts'], tensor['extremes']
    return isinstance(bins, int) and isinstance(tensor['limit'], float) \
        and isinstance(counts, Tensor) and isinstance(extremes, Tensor) \
        and counts.dim() == extremes.dim() == 1 and len(counts) <= bins


def _checksum(tensors: Mapping[str, Mapping[str, Any]]) -> str:
    state = xxhash.xxh3_64()
    for name in sorted(tensors):
        state.update(name.encode())
        for key, value in sorted(tensors[name].items()):
            state.update(key.encode())
            state.update(value.detach().cpu().contiguous().numpy() if isinstance(value, Tensor)
                         else repr(value).encode())
    return state.hexdigest()
