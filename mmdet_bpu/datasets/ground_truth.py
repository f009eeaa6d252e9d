"""Hand the annotations of a sample on to a metric that makes its ground truth from them."""
import copy
import inspect
from typing import Callable, Sequence

from mmdet.datasets.transforms import PackDetInputs


def with_ground_truth(pipeline):
    """The same pipeline with ``instances`` among the ``meta_keys`` of ``PackDetInputs``.

    Nested pipelines (``transforms=[[...], [...]]``) are followed.
    """
    if isinstance(pipeline, (list, tuple)):
        return [with_ground_truth(step) for step in pipeline]
    if isinstance(pipeline, dict):
        if is_step(pipeline, PackDetInputs):
            default = inspect.signature(PackDetInputs).parameters['meta_keys'].default
            return dict(pipeline, meta_keys=_and_instances(pipeline.get('meta_keys', default)))
        return {k: with_ground_truth(v) if k == 'transforms' else v
                for k, v in pipeline.items()}
    if type(pipeline) is PackDetInputs:
        pipeline = copy.copy(pipeline)
        pipeline.meta_keys = _and_instances(pipeline.meta_keys)
    return pipeline


def _and_instances(meta_keys: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys([*meta_keys, 'instances']))


def is_step(step: dict | Callable, kind: type) -> bool:
    """Whether a step of a pipeline, a config or built, is of this transform."""
    if not isinstance(step, dict):
        return isinstance(step, kind)
    name = step.get('type')
    return name is kind or str(name).rpartition('.')[2] == kind.__name__
