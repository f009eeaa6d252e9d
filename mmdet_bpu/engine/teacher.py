"""The float teacher of a QAT run: the detector that QAT starts from, as it was before quantization.

Its weights are not in the run's checkpoints. They say which file it was read from and the checksum of
what was read, so that a resumed run has the same teacher or none.
"""
import os
from typing import Any, Dict, Mapping, Optional

import torch
import xxhash
from torch import nn

from mmdet_bpu.engine.loading import load_strictly
from mmdet_bpu.engine.prepared import load_folded
from mmdet_bpu.engine.stage_names import FLOAT
from mmdet_bpu.engine.weights import read_checkpoint, stage_of
from mmdet_bpu.errors import BpuError
from mmdet_bpu.graph.saved_graph import SavedGraph

KEY = 'bpu_teacher'
"""Where a checkpoint says which teacher its run has."""
FIELD = 'bpu.qat.distill.teacher'


class Teacher:
    """A float detector that gets its weights from a checkpoint, once it is known which.

    Args:
        stock (nn.Module): The detector as its config builds it, not prepared; changed in place.

    Attributes:
        model (nn.Module): It, with its weights after :meth:`read`.
        record (dict | None): ``path`` of the file and ``weights``, their checksum; None before
            :meth:`read`.
        meta (dict | None): Of the checkpoint; None before :meth:`read`.
    """

    def __init__(self, stock: nn.Module) -> None:
        self.model = stock
        self.record: Optional[Dict[str, str]] = None
        self.meta: Optional[Mapping[str, Any]] = None

    def read(self, path: str) -> None:
        """Take the weights of a checkpoint; of a quantized one those before quantization.

        Args:
            path (str): The file.

        Raises:
            BpuError: It does not fit the detector.
        """
        checkpoint = read_checkpoint(path)
        if stage_of(checkpoint) == FLOAT:
            load_strictly(self.model, checkpoint['state_dict'], path)
        else:
            saved = SavedGraph.of(checkpoint, path)
            if saved is None:
                raise BpuError(f'checkpoint {path} was written by version 0.1, which does not say what '
                               f'its float detector was; give a float checkpoint as {FIELD}')
            load_folded(self.model, saved, checkpoint, path)
        self.meta = checkpoint['meta']
        self.record = dict(path=path if '://' in path else os.path.abspath(os.path.expanduser(path)),
                           weights=checksum(checkpoint['state_dict']))

    def read_again(self, checkpoint: Mapping[str, Any], path: str, given: Optional[str]) -> None:
        """Take the weights of the teacher that an interrupted run had.

        Args:
            checkpoint (dict): The one that is resumed from.
            path (str): Its file, for messages.
            given (str, optional): Where the teacher is now; None: where it was.

        Raises:
            BpuError: The run had no teacher, its file is gone, or has other weights now.
        """
        record = checkpoint.get(KEY)
        if not isinstance(record, Mapping) or not all(
                isinstance(record.get(name), str) for name in ('path', 'weights')):
            raise BpuError(f'checkpoint {path} says of no float teacher, and bpu.qat.distill asks for '
                           'one: its run had none. Resume without bpu.qat.distill, or give the '
                           'checkpoint as load_from to begin another run')
        file = given or record['path']
        try:
            self.read(file)
        except BpuError as error:
            if '://' not in file and not os.path.isfile(os.path.expanduser(file)):
                raise BpuError(f'the float teacher of {path} was read from {file}, which is not there '
                               f'any more; put it back, or give its place as {FIELD}') from error
            raise
        if self.record['weights'] != record['weights']:
            raise BpuError(f'the float teacher of {path} had weights of checksum {record["weights"]}, '
                           f'those in {file} have {self.record["weights"]}; give the file that the '
                           f'run began with as {FIELD}')


def checksum(state_dict: Mapping[str, Any]) -> str:
    """Of all weights and buffers that quantization has not added."""
    state = xxhash.xxh3_64()
    for name in sorted(state_dict):
        if not name.removeprefix('module.').startswith('quant.'):
            state.update(name.encode())
            tensor = state_dict[name].detach().cpu().contiguous()
            state.update(tensor.view(-1).view(torch.uint8).numpy())
    return state.hexdigest()
