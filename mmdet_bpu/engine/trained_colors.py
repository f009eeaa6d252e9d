"""Which colours the weights of a checkpoint were trained on, and a word where they meet others."""
import logging
from typing import Any, Dict

from mmengine.logging import print_log

from mmdet_bpu.families.camera_format import RGB, YUV, camera_format

KEY = 'bpu_colors'


def trained_colors(input_format: Any) -> str:
    """What a model sees: ``'yuv'``, or ``'rgb'`` for the colours of its data preprocessor.

    Args:
        input_format (str | Mapping, optional): ``bpu.input_format``.
    """
    camera = camera_format(input_format)
    return camera.model if camera is not None else RGB


def warn_of_other_colors(meta: Dict[str, Any], input_format: Any, path: str) -> None:
    """Warn of float weights that will be fed with other colours than they were trained on.

    Args:
        meta (dict): Of the checkpoint; what says nothing (a stock one) was trained on pictures.
        input_format (str | Mapping, optional): ``bpu.input_format`` of the run.
        path (str): The checkpoint.
    """
    before, now = meta.get(KEY, RGB), trained_colors(input_format)
    if before == now:
        return
    words = ("it was trained on Y, U, V, and bpu.input_format feeds it with the colours of its data "
             "preprocessor; set bpu.input_format=dict(format=..., model='yuv')") if before == YUV else (
        "it does not say that it was trained on Y, U, V, with which "
        "bpu.input_format.model='yuv' feeds it; train it so from stage float on, or keep its "
        "weights and let the network convert: model='rgb'")
    print_log(f'checkpoint {path}: {words}', logger='current', level=logging.WARNING)
