"""Training data of a run without labels: every picture counts, and no annotation is read."""
from typing import Any, Iterator, List

from mmengine.config import Config

from mmdet_bpu.datasets.without_annotations import without_annotations
from mmdet_bpu.errors import BpuError


def read_no_labels(cfg: Config) -> None:
    """Take annotations, and filters by them, out of the training data and its hooks, in place.

    Args:
        cfg (Config): Of a run whose ``bpu.qat.labels`` is False.
    """
    loader = cfg.get('train_dataloader')
    if loader is not None:
        pipelines_without_annotations(loader.get('dataset'))
    for hook in cfg.get('custom_hooks') or ():
        if hook.get('switch_pipeline') is not None:
            hook['switch_pipeline'] = without_annotations(hook['switch_pipeline'])


def pipelines_without_annotations(dataset: Any) -> None:
    """The same of the config of a data set, in place, those inside of wrappers included."""
    for each in _datasets(dataset):
        if each.get('pipeline') is not None:
            each['pipeline'] = without_annotations(each['pipeline'])
        if (each.get('filter_cfg') or {}).get('filter_empty_gt'):
            each['filter_cfg']['filter_empty_gt'] = False


def _datasets(config: Any) -> Iterator[dict]:
    """The configs of a data set and of all that it wraps."""
    parts: List[Any] = list(config) if isinstance(config, (list, tuple)) else [config]
    for part in parts:
        if isinstance(part, dict):
            yield part
            for key in ('dataset', 'datasets'):
                yield from _datasets(part.get(key))


def _wrapped(dataset: Any) -> Iterator[Any]:
    """A data set and all that it wraps."""
    yield dataset
    inner = [getattr(dataset, 'dataset', None), *(getattr(dataset, 'datasets', None) or ())]
    for each in inner:
        if each is not None:
            yield from _wrapped(each)


def refuse_unlabelled(field: str, dataset: Any, stage: str) -> None:
    """Refuse a data set without the labels that a run reads: all its pictures would be background.

    Args:
        field (str): The loader's, for the message.
        dataset (Dataset): A data set that says so by ``labelled``; any other passes.
        stage (str): Of the run.

    Raises:
        BpuError: It has none.
    """
    if not all(getattr(each, 'labelled', True) for each in _wrapped(dataset)):
        raise BpuError(f'field {field}: stage {stage!r} reads labels, and nobody has annotated the '
                       'pictures of its data set; give annotated ones, or train QAT with '
                       'bpu.qat.labels=False')
