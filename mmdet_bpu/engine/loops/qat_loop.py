"""Quantization-aware training."""
from mmengine.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop


@LOOPS.register_module()
class QATLoop(EpochBasedTrainLoop):
    """Epoch-based training of a prepared model.

    It is mmengine's own loop under a name that says what trains. Whatever is particular to the stage
    hangs on the runner, so any other train loop, by iterations or the user's own, serves QAT as well.
    """
