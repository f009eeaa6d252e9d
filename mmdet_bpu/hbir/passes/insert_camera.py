"""Put the conversion of a camera's planes before the image, where the contract asks for it.

    (%image)   ->   (%image_y, %image_uv), %image = bpu.image_preprocess(bpu.image_convert(...))
"""
from mmdet_bpu.hbir.camera_stage import insert_integer_stage, stage_of
from mmdet_bpu.hbir.passes.conversion import Conversion


def insert_camera(conversion: Conversion) -> None:
    """Replace ``result``; ``emitted`` follows."""
    stage = stage_of(conversion.metadata)
    if stage is None:
        return
    conversion.result, replaced = insert_integer_stage(conversion.result, stage)
    conversion.emitted = {value: replaced.get(ssa, ssa)
                          for value, ssa in conversion.emitted.items()}
