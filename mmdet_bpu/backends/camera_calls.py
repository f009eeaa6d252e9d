"""The vendor's calls that put a camera's conversion before the input of a module."""
from typing import Any, Callable

from mmdet_bpu.errors import BpuError
from mmdet_bpu.hbir.camera_ops import CONVERT_MODES, NO_CSC
from mmdet_bpu.hbir.camera_stage import preprocess_attributes, require_vendor_form


def insert_camera(module: Any, stage: dict, step: Callable[..., Any]) -> None:
    """Put a camera's conversion before the only input of a module.

    The normalisation first, then what makes planes of its input; the argument may be another one
    after each call.

    Args:
        module: The vendor's, with one function.
        stage (dict): ``preprocessing`` of a contract.
        step (Callable): Makes a call of the vendor's, (what it is to do, function, its arguments).

    Raises:
        BpuError: The vendor has no form for the camera, the module has no such calls, or one failed.
    """
    require_vendor_form(stage)
    attributes = preprocess_attributes(stage)
    csc = attributes['csc']
    _insert(module, step, 'insert_image_preprocess',
            mode='skip' if csc == NO_CSC else csc.lower(), divisor=attributes['divisor'],
            mean=attributes['mean'], std=attributes['sd'], is_signed=True)
    if stage['camera']['format'] in CONVERT_MODES:
        _insert(module, step, 'insert_image_convert', mode=stage['camera']['format'])


def _insert(module: Any, step: Callable[..., Any], call: str, **arguments: Any) -> None:
    functions = list(getattr(module, 'functions', ()))
    inputs = list(functions[0].inputs) if len(functions) == 1 else []
    if len(inputs) != 1 or not callable(getattr(inputs[0], call, None)):
        raise BpuError(f'backend hbdk4: expected one input with {call}, found {len(inputs)} inputs; '
                       'a version with the published interface is needed')
    step(f'{call.replace("_", " ")} before the image', getattr(inputs[0], call), **arguments)
