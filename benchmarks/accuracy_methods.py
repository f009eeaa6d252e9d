"""Ways to find integers of a float detector, as overrides of its config."""
from typing import Dict, List, NamedTuple, Tuple

CALIBRATION, QAT = 'bpu.calibration', 'bpu.qat'
FEW = 25  # batches of 8 to calibrate on

STATISTICS, IMAGES, SEARCHED = 'statistics', 'images', 'searched'
TRAINED, CONTROL = 'trained', 'control'


class Method(NamedTuple):
    """One way.

    Attributes:
        start (str): ``statistics``: another choice from what the default calibration saw; ``images``: a
            calibration of its own; ``searched``: dtypes that a search from the default calibration
            chose; ``trained``: QAT from the default calibration; ``control``: float training for the
            steps of QAT.
        overrides (tuple[str]): ``KEY=VALUE``.
        hbm (bool): Whether the compiled model is evaluated too. Defaults to False.
    """
    start: str
    overrides: Tuple[str, ...] = ()
    hbm: bool = False


REPAIRED = tuple(f'{CALIBRATION}.{name}=True' for name in (
    'equalize', 'adaround', 'bias_correction'))

METHODS: Dict[str, Method] = {
    'control': Method(CONTROL),
    'control_frozen_norms': Method(CONTROL, ('model.backbone.norm_eval=True', )),
    'default': Method(STATISTICS, hbm=True),
    **{name: Method(STATISTICS, (f'{CALIBRATION}.observer={name}', )) for name in (
        'minmax', 'moving_average', 'percentile', 'kl', 'mix')},
    **{f'weights_{name}': Method(STATISTICS, (f'{CALIBRATION}.weight_observer={name}', ))
       for name in ('mse', 'kl')},
    'equalize': Method(IMAGES, (f'{CALIBRATION}.equalize=True', )),
    'bias_correction': Method(IMAGES, (f'{CALIBRATION}.bias_correction=True', )),
    'adaround': Method(IMAGES, (f'{CALIBRATION}.adaround=True', )),
    'adaround_blocks': Method(IMAGES, (f'{CALIBRATION}.adaround.by=block', )),
    'all_repairs': Method(IMAGES, REPAIRED),
    'search': Method(SEARCHED),
    'qat': Method(TRAINED, hbm=True),
    'qat_closed': Method(TRAINED, (f'{QAT}.closed=True', )),
    'qat_learned_scales': Method(TRAINED, (f'{QAT}.scales=learned', )),
    'qat_learned_weights': Method(TRAINED, (f'{QAT}.scales=learned', f'{QAT}.weight_reach=learned')),
    'qat_following_scales': Method(TRAINED, (f'{QAT}.scales=following', )),
    'qat_live_norms': Method(TRAINED, (f'{QAT}.batch_norm=live', )),
    'qat_distilled': Method(TRAINED, (f'{QAT}.distill.outputs=1.0', )),
    'qat_without_labels': Method(TRAINED, (f'{QAT}.labels=False', )),
}
"""Name -> way, in the order of the table."""

WITHOUT_LABELS = ('qat_without_labels', )
"""What learns of the float model alone, and so is held against that."""


def starting_at(*starts: str) -> List[str]:
    """Names of the methods that start at one of ``starts``."""
    return [name for name, method in METHODS.items() if method.start in starts]
