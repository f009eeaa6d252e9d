"""What a deployment's models detect in some test pictures, for its report."""
import mmdet_bpu.registration  # noqa: F401,I001  (registers our modules)

from typing import Any, List, Optional, Sequence, Tuple

import cv2
import numpy as np
from mmengine.config import Config
from torch import nn

from mmdet_bpu.analysis.detection_change import detection_change
from mmdet_bpu.analysis.pictures import draw, jpeg_of, side_by_side
from mmdet_bpu.apis.models import deployable_detector, settings_of
from mmdet_bpu.compiler.report import ReportPicture, ReportPictures
from mmdet_bpu.engine.config_errors import refused_config
from mmdet_bpu.engine.loading import load_strictly
from mmdet_bpu.engine.predictors import ArtifactPredictor, DetectorPredictor
from mmdet_bpu.engine.quant_analysis import INTEGERS, QUANTIZED
from mmdet_bpu.engine.sample_pictures import SamplePicture, sample_pictures
from mmdet_bpu.engine.stage_names import FLOAT
from mmdet_bpu.engine.weights import check_stage, read_checkpoint
from mmdet_bpu.errors import BpuError
from mmdet_bpu.executors.interpreter import Interpreter
from mmdet_bpu.families.class_names import class_names
from mmdet_bpu.program.program import Program

DEFAULT_PICTURES = 3
"""How many are drawn where the data are at hand."""
MOST_PICTURES = 32  # of one page
SCORE_THR = 0.3  # boxes below are not drawn
WIDEST = 1800  # px, of all models side by side


def check_count(count: Optional[int]) -> None:
    """Check how many pictures are asked for.

    Raises:
        BpuError: It is not from 0 to ``MOST_PICTURES``.
    """
    if count is not None and not 0 <= count <= MOST_PICTURES:
        raise BpuError(f'parameter pictures: expected 0 to {MOST_PICTURES}, found {count}')


def float_detector(cfg: Config, checkpoint: str) -> nn.Module:
    """The float model that others are drawn beside.

    Raises:
        BpuError: The checkpoint is of another stage or model.
    """
    loaded = read_checkpoint(checkpoint)
    check_stage(loaded, (FLOAT, ), checkpoint, 'be drawn beside the integers')
    model = deployable_detector(cfg, settings_of(cfg))
    load_strictly(model, loaded['state_dict'], checkpoint)
    return model


def pictures_to_draw(cfg: Config, count: Optional[int] = None
                     ) -> Tuple[List[SamplePicture], str]:
    """The first test pictures, and if there are none, why.

    Args:
        cfg (Config): Completed config.
        count (int, optional): How many. Defaults to 3 where the data are at hand, else none.

    Raises:
        BpuError: A number was asked for, and the pictures cannot be read.
    """
    if count == 0:
        return [], ReportPictures().note
    try:
        return sample_pictures(cfg, DEFAULT_PICTURES if count is None else count), ''
    except BpuError as error:
        if count is not None:
            raise
        return [], f'No picture is drawn: {error}'


def report_pictures(cfg: Config, model: nn.Module, program: Program,
                    pictures: Sequence[SamplePicture],
                    floating: Optional[nn.Module] = None) -> ReportPictures:
    """Draw what each model detects.

    Args:
        cfg (Config): Completed config.
        model (nn.Module): Prepared detector that quantizes.
        program (Program): Its integers, with the contract.
        pictures (Sequence[SamplePicture]): One or more.
        floating (nn.Module, optional): Float detector. Defaults to none.

    Raises:
        BpuError: A host cannot feed or decode the integers.
    """
    classes = class_names(cfg)
    detectors = [(model, QUANTIZED)] if floating is None else [(floating, FLOAT), (model, QUANTIZED)]
    with refused_config(cfg):
        predictors: List[Any] = [
            DetectorPredictor(each, cfg, classes, title) for each, title in detectors]
    predictors.append(ArtifactPredictor(Interpreter(program, kernels='fast'), INTEGERS))
    drawn = [_drawn(each.name, each.image, predictors, classes) for each in pictures]
    titles = ', '.join(predictor.title for predictor in predictors)
    return ReportPictures(drawn, f'The first {len(drawn)} of the test data, from left to right: {titles}. '
                          f'Boxes with a score of {SCORE_THR:g} or more.')


def _drawn(name: str, image: np.ndarray, predictors: List[Any], classes: List[str]) -> ReportPicture:
    found = [predictor.predict(image) for predictor in predictors]
    counts = ', '.join(f'{predictor.title} {len(each.above(SCORE_THR).scores)} boxes'
                       for predictor, each in zip(predictors, found))
    change = detection_change(found[-2], found[-1], SCORE_THR)
    caption = (f'{counts}; integers against {predictors[-2].title}: {change.lost} lost, {change.added} '
               f'added, sum of score changes {change.change:.2f}')
    picture = side_by_side([(predictor.title, draw(image, each.above(SCORE_THR), classes))
                            for predictor, each in zip(predictors, found)])
    if picture.shape[1] > WIDEST:
        size = WIDEST, round(picture.shape[0] * WIDEST / picture.shape[1])
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return ReportPicture(name, caption, jpeg_of(picture))
