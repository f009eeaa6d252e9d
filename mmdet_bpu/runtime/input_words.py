"""The input stage of a contract in a line for people."""
from typing import Any, Dict

from mmdet_bpu.runtime.input_stage import takes_planes

FORMATS = {'nv12': 'NV12 frames', 'yuv444': 'YUV 4:4:4 frames', 'gray': 'luma of frames'}
MATRICES = {'bt601': 'BT.601', 'bt709': 'BT.709'}
SEEN = {'yuv': 'seen as Y, U, V', 'gray': 'seen as gray', 'rgb': 'converted to RGB',
        'bgr': 'converted to BGR'}


def input_words(stage: Dict[str, Any]) -> str:
    """What is fed, who resizes it, and who converts and normalises it.

    Args:
        stage (dict): ``preprocessing`` of a contract; '' for one of another form.
    """
    resize, order = stage.get('resize'), stage.get('color_order')
    if not isinstance(resize, dict) or not isinstance(order, str):
        return ''
    sized = 'letterboxed' if resize.get('keep_ratio') else 'stretched'
    size = f'{sized} to {resize.get("height")} x {resize.get("width")} px by the host'
    camera = stage.get('camera')
    if camera is None:
        return f'{order} pictures, {size}, normalised by the host'
    matrix = '' if order == 'gray' else f' {MATRICES.get(camera.get("matrix"), "")}'
    by = 'inside the network' if takes_planes(stage) else 'by the host'
    return (f'{FORMATS.get(camera.get("format"), "frames")}, {camera.get("range")} range{matrix}, '
            f'{size} plane by plane, {SEEN.get(order, order)} and normalised {by}')
