"""The stages of a detector: their names, their order, and what each starts from."""
from typing import Dict, Tuple

from mmdet_bpu.lowering.artifact_formats import FORMATS

FLOAT, CALIBRATION, QAT, INT, HBM = 'float', 'calibration', 'qat', 'int', 'hbm'
VENDOR = 'hbdk4'

# Their artefacts convert what a camera gives; they are fed with its bytes.
BYTE_STAGES = tuple(row.stage for row in FORMATS.values() if row.converts)

TRAINING_STAGES = (FLOAT, CALIBRATION, QAT)
# Their model has fake quantizers.
QUANTIZED_STAGES = (CALIBRATION, QAT)
# Evaluated, not trained: their network is an executable, one stage for each format of artefacts, and
# one for what the vendor's package makes of a checkpoint.
EXECUTABLE_STAGES = (*FORMATS, VENDOR)
STAGES = TRAINING_STAGES + EXECUTABLE_STAGES

# Stages whose checkpoints a stage may start from, the one to prefer first.
SOURCE_STAGES: Dict[str, Tuple[str, ...]] = {
    FLOAT: (FLOAT, ),
    CALIBRATION: (FLOAT, ),
    QAT: (CALIBRATION, FLOAT, QAT),
}
