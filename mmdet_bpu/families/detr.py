"""Query-based detectors: DETR, Conditional, DAB and Deformable DETR, DINO.

Their heads return ``(cls_scores, bbox_preds)`` of every decoder layer, stacked along dim 0 or in a
list. Only the last layer is deployed: ``cls_scores`` ``(N, queries, classes)`` and ``bbox_preds``
``(N, queries, 4)``. Encoder proposals and denoising queries are for the losses: not captured.
"""
import functools
import inspect
from typing import Any, Dict, List, Mapping, Optional, Tuple

from mmengine.config import Config, ConfigDict
from torch import Tensor, nn

from mmdet_bpu.families.base import Family, register
from mmdet_bpu.families.decoding_facts import common_facts, is_count
from mmdet_bpu.families.detector_path import example_samples
from mmdet_bpu.families.output_tree import Tree, fill


@register('DETRHead')
class DETR(Family):
    """A transformer between neck and head; boxes are queries' and need no NMS."""
    name = 'detr'
    outputs = ('cls_scores', 'bbox_preds')

    def regions(self, model: nn.Module) -> Dict[str, Tuple[str, ...]]:
        return {'': ('extract_feat', 'forward_transformer'), 'bbox_head': ('forward', )}

    def run(self, model: nn.Module, image: Tensor) -> Any:
        samples = example_samples(image.shape[0], tuple(image.shape[-2:]))
        given = model.forward_transformer(model.extract_feat(image), samples)
        # The others are proposals of the encoder and facts about denoising: inputs of the loss.
        taken = inspect.signature(model.bbox_head.forward).parameters
        return model.bbox_head.forward(**{k: v for k, v in given.items() if k in taken})

    def deployed(self, outputs: Any) -> List[Tensor]:
        return [layers[-1] for layers in outputs]

    def refuse(self, model: nn.Module, cfg: Config) -> Optional[str]:
        """Stock decoding takes the best ``max_per_img`` of all queries (and classes, by sigmoid)."""
        head, queries = model.bbox_head, getattr(model, 'num_queries', None)
        most = (getattr(head, 'test_cfg', None) or {}).get('max_per_img', 1)
        if not is_count(most):
            return f'field model.test_cfg.max_per_img: expected a positive integer, found {most!r}'
        if queries is None:
            return None
        sigmoid = head.loss_cls.use_sigmoid
        boxes = queries * head.num_classes if sigmoid else queries
        if most <= boxes:
            return None
        source = f'{queries} queries' + (f' x {head.num_classes} classes' if sigmoid else '')
        return (f'field model.test_cfg.max_per_img: expected at most {boxes}, as many boxes as '
                f'{source} give, found {most}')

    def refuse_shape(self, model: nn.Module, image: Tensor) -> Optional[str]:
        """Two-stage detectors take their queries from as many positions of the feature maps."""
        queries = getattr(model, 'num_queries', 0)
        if not getattr(model, 'as_two_stage', False):
            return None
        positions = sum(level.shape[-2] * level.shape[-1] for level in model.extract_feat(image))
        if positions >= queries:
            return None
        return (f'expected (height, width) with at least as many positions in the feature maps as '
                f'model.num_queries = {queries}, found {tuple(image.shape[-2:])} with {positions}; '
                'give a larger input, or fewer queries')

    def restore(self, tree: Tree, outputs: Mapping[str, Tensor]) -> List[Tensor]:
        """Each ``(1, N, queries, C)``: one decoder layer, the last."""
        return [value.unsqueeze(0) for value in fill(tree, outputs)]

    def facts(self, head: nn.Module, test_cfg: ConfigDict,
              input_shape: Tuple[int, int]) -> Dict[str, Any]:
        """Softmax scores have the background as their last class."""
        facts = common_facts(self.name, head, test_cfg, input_shape)
        activation = 'sigmoid' if head.loss_cls.use_sigmoid else 'softmax'
        return dict(facts, min_bbox_size=None, nms=None, activation=activation, scores=activation,
                    boxes='cx, cy, w, h in [0, 1] of the resized image')


@register('ConditionalDETRHead')
class ConditionalDETR(DETR):
    """The head calls its box branch once per layer, and stock prediction only for the last.

    The last layer would be the sixth call of the branch in training and the first in prediction:
    two sites. In a prepared detector prediction runs all layers too; the boxes are the same.
    """

    def open(self, model: nn.Module) -> None:
        head = type(model.bbox_head)
        if not issubclass(head, AllLayers):
            model.bbox_head.__class__ = _predicting_all_layers(head)


@register('DABDETRHead')
class DABDETR(DETR):
    """Derived from Conditional DETR's, but the head takes all layers in one call."""


@register('DINOHead')
class DINO(DETR):
    """In training the decoder has contrastive denoising queries too."""

    def denoising(self, model: nn.Module) -> Optional[str]:
        return 'dn_query_generator' if hasattr(model, 'dn_query_generator') else None


class AllLayers:
    """Mixin of a DETR head: prediction from the outputs of all decoder layers."""

    def predict(self, batch_data_samples: list, rescale: bool = True, **inputs: Any) -> list:
        """As the stock ``predict``, of which it has the arguments, passed by name."""
        metas = [sample.metainfo for sample in batch_data_samples]
        return self.predict_by_feat(*self(**inputs), batch_img_metas=metas, rescale=rescale)


@functools.lru_cache(maxsize=None)
def _predicting_all_layers(cls: type) -> type:
    return type(cls.__name__, (AllLayers, cls), {'__module__': cls.__module__})
