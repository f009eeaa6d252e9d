"""What is particular to a family of detectors, and the registry of families by head class.

A family is stateless: everything is asked of the model that is passed in. To add one, write a file
in this package (or register from a module of ``custom_imports``)::

    @register('MyHead')
    class MyFamily(Family):
        name = 'mine'
        ...

and, for the host of a board, ``runtime/decoders/mine.py``.
"""
import inspect
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple, Type

from mmengine.config import Config, ConfigDict
from torch import Tensor, nn

from mmdet_bpu.errors import BpuError
from mmdet_bpu.families.meanings import Meaning, meaning_of
from mmdet_bpu.families.output_tree import Tree, fill, name_tensors

# px at top, bottom, left and right. CenterNet asks for what its stock test pipeline pads (by
# RandomCenterCropPad); the deployed image has no border.
NO_BORDER = (0.0, 0.0, 0.0, 0.0)
METAS = 'batch_img_metas'  # predict_by_feat: what comes before it is what forward returned


class Family:
    """A head whose ``forward`` takes the neck's features and whose ``predict_by_feat`` decodes.

    That is what every dense head of mmdet is; a family of them says in addition how a host decodes
    it (:meth:`contract`). Another kind of detector overrides more.

    Attributes:
        name (str): Name in the contract; it picks the host's decoder.
        outputs (tuple[str]): Public names of the outermost outputs of the head. Defaults to none:
            they are called as ``predict_by_feat`` calls them.
    """
    name = 'generic'
    outputs: Tuple[str, ...] = ()

    def regions(self, model: nn.Module) -> Dict[str, Tuple[str, ...]]:
        """Methods that enclose the tensor path: sub-module path -> method names."""
        return {'': ('extract_feat', ), 'bbox_head': ('forward', )}

    def run(self, model: nn.Module, image: Tensor) -> Any:
        """Raw outputs of the head, in its own nesting, for images ``(N, C, H, W)``.

        Images are normalised and not padded. This is mmdet's ``mode='tensor'``.
        """
        return model.bbox_head.forward(model.extract_feat(image))

    def deployed(self, outputs: Any) -> Any:
        """What of the raw outputs is deployed: outputs that the host does not need are left out.

        It may index and cut tensors; what it does is captured with the detector.
        """
        return outputs

    def output_tree(self, model: nn.Module, deployed: Any) -> Tree:
        """Public names in the nesting of the deployed outputs."""
        return name_tensors(deployed, self.outputs or argument_names(model.bbox_head))

    def meanings(self, model: nn.Module) -> Dict[str, Meaning]:
        """What the outermost outputs mean, by their public names; others mean just values."""
        names = self.outputs or argument_names(model.bbox_head)
        return {name: meaning_of(name, model.bbox_head) for name in names}

    def restore(self, tree: Tree, outputs: Mapping[str, Tensor]) -> List[Any]:
        """Arguments of the stock head's ``predict_by_feat`` before the images' metadata.

        Args:
            tree (Tree): What :meth:`output_tree` gave.
            outputs (Mapping[str, Tensor]): Deployed outputs by their public names, float32.
        """
        filled = fill(tree, outputs)
        return filled if isinstance(tree, list) else [filled]

    def predict(self, head: nn.Module, arguments: Sequence[Any], metas: List[dict]) -> List[Any]:
        """Boxes in original image coordinates by the stock head: one instance data per image."""
        metas = [{'border': NO_BORDER, **meta} for meta in metas]
        return head.predict_by_feat(*arguments, batch_img_metas=metas, rescale=True)

    def contract(self, model: nn.Module, cfg: Config) -> Dict[str, Any]:
        """What the host needs to know to decode the outputs, as plain data.

        Returns:
            dict: ``family``, the name of the decoder, and that decoder's facts.
        """
        head = model.bbox_head
        test_cfg = getattr(head, 'test_cfg', None) or getattr(model, 'test_cfg', None)
        return self.facts(head, ConfigDict(test_cfg or {}), tuple(cfg.bpu['input_shape']))

    def facts(self, head: nn.Module, test_cfg: ConfigDict,
              input_shape: Tuple[int, int]) -> Dict[str, Any]:
        """:meth:`contract`, read from the built head.

        Args:
            head (nn.Module): Built stock head.
            test_cfg (ConfigDict): Its test settings.
            input_shape (tuple[int, int]): Height and width of the network's input, px.
        """
        return dict(family=self.name, num_classes=int(getattr(head, 'num_classes', 0)))

    def refuse(self, model: nn.Module, cfg: Config) -> Optional[str]:
        """Why this model of the family cannot be deployed, in one sentence, or None."""
        return None

    def refuse_shape(self, model: nn.Module, image: Tensor) -> Optional[str]:
        """Why the family cannot take images ``(N, C, H, W)`` that backbone and neck can, or None.

        The model may be on torch's meta device: shapes without values.
        """
        return None

    def denoising(self, model: nn.Module) -> Optional[str]:
        """Path of the part that makes queries for training alone, or None.

        Called, it returns first a tensor ``(N, queries, C)``; they come before the other queries.
        """
        return None

    def open(self, model: nn.Module) -> None:
        """Let prediction make the calls that training makes, in place; weights stay.

        What is captured is the detector's ``mode='tensor'``. A head that predicts by another way
        would miss the quantizers of its sites.
        """


def argument_names(head: nn.Module) -> Tuple[str, ...]:
    """Names that ``predict_by_feat`` of ``head`` has for what ``forward`` returned."""
    decode = getattr(type(head), 'predict_by_feat', None)
    if decode is None:
        return ()
    names = list(inspect.signature(decode).parameters)[1:]
    return tuple(names[:names.index(METAS)]) if METAS in names else ()


class Families:
    """Families by the name of a head's class; a derived class belongs to its base's family."""

    def __init__(self) -> None:
        self._by_head: Dict[str, Family] = {}

    def register(self, *heads: str) -> Callable[[Type[Family]], Type[Family]]:
        """Class decorator: these head classes, by name, belong to the family."""

        def add(cls: Type[Family]) -> Type[Family]:
            for head in heads:
                present = self._by_head.get(head)
                assert present is None or type(present).__qualname__ == cls.__qualname__, \
                    f'{head} belongs to {type(present).__name__} already, not to {cls.__name__}'
                self._by_head[head] = cls()
            return cls

        return add

    def of_head(self, cls: type) -> Optional[Family]:
        """Family that a head's class or the nearest of its bases is registered for, or None."""
        return next((self._by_head[base.__name__] for base in cls.__mro__
                     if self.registered(base)), None)

    def registered(self, head: type) -> bool:
        """Whether this class itself is registered, not only a base of it."""
        return head.__name__ in self._by_head

    def of(self, model: nn.Module) -> Family:
        """Family of a detector; a head that nobody registered is a :class:`Family` as it stands.

        Raises:
            BpuError: The model has no ``extract_feat`` or no ``bbox_head``.
        """
        if not hasattr(model, 'extract_feat') or not isinstance(
                getattr(model, 'bbox_head', None), nn.Module):
            raise BpuError('expected an mmdet detector with extract_feat and bbox_head, found '
                           f'{type(model).__name__}')
        return self.of_head(type(model.bbox_head)) or GENERIC


GENERIC = Family()
FAMILIES = Families()
register = FAMILIES.register
