"""What a student loses against its teacher, from what one forward of each showed."""
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from mmdet_bpu.errors import BpuError
from mmdet_bpu.families.base import FAMILIES
from mmdet_bpu.families.meanings import Meaning
from mmdet_bpu.families.output_tree import leaves
from mmdet_bpu.quantization.distillation import divergences
from mmdet_bpu.quantization.distillation.divergences import by_position
from mmdet_bpu.quantization.distillation.selections import Selection, at, shared_rows
from mmdet_bpu.quantization.distillation.signals import Signals

BOX = 4
SCORES = (Meaning.SIGMOID, Meaning.SOFTMAX)


class OutputLosses:
    """Compares what is deployed: every output by what it means, then what was selected on the way.

    Args:
        names (Sequence[str]): Of the outputs: the outermost one's and, behind a dot, the part of it (the
            level).
        meanings (Mapping[str, Meaning]): Of the outermost ones; those that are absent mean just values.
        classes (int): Scores of one position.
    """

    def __init__(self, names: Sequence[str], meanings: Mapping[str, Meaning], classes: int) -> None:
        self.names, self.meanings, self.classes = names, meanings, classes

    @classmethod
    def of(cls, model: nn.Module) -> 'OutputLosses':
        """Those of a prepared detector."""
        return cls(leaves(model.quant.networks[0].graph.output_tree),
                   FAMILIES.of(model).meanings(model),
                   getattr(model.bbox_head, 'cls_out_channels', 1))

    def __call__(self, student: Signals, teacher: Signals) -> Dict[str, Tensor]:
        """Losses by the name of the outermost output, and of the selections.

        Args:
            student (Signals): With gradients; in training there may be more rows before those that are
                deployed.
            teacher (Signals): Of the same images.
        """
        if len(student.outputs) != len(teacher.outputs):
            raise BpuError(f'field bpu.qat.distill.outputs: the head returns {len(student.outputs)} '
                           f'tensors in training and {len(teacher.outputs)} in prediction, so they '
                           'cannot be compared; set bpu.qat.labels=False, which trains what is '
                           'deployed, or outputs=0')
        pairs = [(deployed_rows(ours.float(), theirs, name), theirs.float())
                 for name, ours, theirs in zip(self.names, student.outputs, teacher.outputs)]
        shared = None
        if teacher.selections:
            shared, places = shared_rows(student.selections[-1].rows, teacher.selections[-1].rows)
            rows = shared.shape
            pairs = [(ours, at(theirs, places)) if theirs.shape[:2] == rows and theirs.dim() == 3
                     else (ours, theirs) for ours, theirs in pairs]
        losses = self._of_outputs(pairs, shared)
        for ours, theirs in zip(student.selections, teacher.selections):
            for name, loss in of_selection(ours, theirs).items():
                losses[name] = losses.get(name, 0) + loss
        return losses

    def _of_outputs(self, pairs: Sequence[Tuple[Tensor, Tensor]],
                    shared: Optional[Tensor]) -> Dict[str, Tensor]:
        """Means over the parts (levels) of each outermost output."""
        parts: Dict[str, List[Tensor]] = {}
        sure = self._sure(pairs)
        for index, (name, (ours, theirs)) in enumerate(zip(self.names, pairs)):
            outermost, _, level = name.partition('.')
            weight = sure.get(level) if self._means(name) is Meaning.BOXES else None
            parts.setdefault(outermost, []).append(
                self._divergence(name, ours, theirs, weight, shared))
        return {name: torch.stack(found).mean() for name, found in parts.items()}

    def _sure(self, pairs: Sequence[Tuple[Tensor, Tensor]]) -> Dict[str, Tensor]:
        """Level -> how sure the teacher is at each position, from its scores."""
        return {name.partition('.')[2]: divergences.confidence(
                    by_position(theirs, self.classes), self._means(name) is Meaning.SOFTMAX)
                for name, (_, theirs) in zip(self.names, pairs) if self._means(name) in SCORES}

    def _means(self, name: str) -> Meaning:
        return self.meanings.get(name.partition('.')[0], Meaning.VALUES)

    def _divergence(self, name: str, ours: Tensor, theirs: Tensor, sure: Optional[Tensor],
                    shared: Optional[Tensor]) -> Tensor:
        means, per = self._means(name), 1
        if means in SCORES:
            per = self.classes
        elif means is Meaning.BOXES:
            if sure is None or theirs.dim() == 4 and theirs.shape[1] % sure.shape[1]:
                return divergences.values(ours, theirs)
            per = theirs.shape[1] // sure.shape[1] if theirs.dim() == 4 else theirs.shape[-1]
        elif means is Meaning.VALUES:
            return divergences.values(ours, theirs)
        ours, theirs = by_position(ours, per), by_position(theirs, per)
        weight = theirs.new_ones(theirs.shape[:-1])
        if shared is not None and shared.shape == weight.shape:
            weight = shared.to(weight)
        if means is Meaning.BOXES:
            return divergences.boxes(ours, theirs, weight * sure)
        compare = divergences.categorical if means is Meaning.SOFTMAX else divergences.bernoulli
        return compare(ours, theirs, weight)


def of_selection(ours: Selection, theirs: Selection) -> Dict[str, Tensor]:
    """Losses of the scores at every position, and of the boxes at those that both selected."""
    student, teacher = ours.scores.float().unsqueeze(-1), theirs.scores.float().unsqueeze(-1)
    losses = dict(selected_scores=divergences.bernoulli(
        student, teacher, teacher.new_ones(teacher.shape[:-1])))
    shared, places = shared_rows(ours.rows, theirs.rows)
    sure = theirs.scores.float().gather(1, theirs.rows).gather(1, places).sigmoid() * shared
    for mine, other in zip(ours.gathered, theirs.gathered):
        if mine.shape[-1] == BOX:  # before their sigmoid, which takes infinities too
            losses['selected_boxes'] = losses.get('selected_boxes', 0) + divergences.boxes(
                mine.float().sigmoid(), at(other.float(), places).sigmoid(), sure)
    return losses


def of_features(student: Mapping[str, List[Tensor]],
                teacher: Mapping[str, List[Tensor]]) -> Tensor:
    """Mean over the tensors of all modules of their squared error over their variance.

    Raises:
        BpuError: A module returns other tensors in training than in prediction.
    """
    found = []
    for path, theirs in teacher.items():
        ours = student[path]
        if len(ours) != len(theirs):
            raise BpuError(f'field bpu.qat.distill.modules: {path} returns {len(ours)} tensors in '
                           f'training and {len(theirs)} in prediction, so they cannot be compared')
        found += [divergences.values(deployed_rows(mine.float(), other, path), other.float())
                  for mine, other in zip(ours, theirs)]
    if not found:
        raise BpuError('field bpu.qat.distill.modules: expected modules that return tensors, found '
                       f'{", ".join(teacher)}, which do not run')
    return torch.stack(found).mean()


def deployed_rows(student: Tensor, teacher: Tensor, name: str) -> Tensor:
    """What of a training tensor is deployed: denoising queries come before the others.

    Raises:
        BpuError: It is not the teacher's with more rows before it.
    """
    more = [ours - theirs for ours, theirs in zip(student.shape, teacher.shape)]
    if student.dim() != teacher.dim() or min(more, default=0) < 0:
        raise BpuError(f'field bpu.qat.distill: {name} has shape {tuple(student.shape)} in training and '
                       f'{tuple(teacher.shape)} in the teacher, so they cannot be compared')
    return student[tuple(slice(extra, None) for extra in more)]
