"""The order of the passes, checked before anything runs."""
from dataclasses import dataclass
from typing import Callable, List, Optional, Sequence, Tuple

from xdsl.dialects.builtin import ModuleOp

from mmdet_bpu.errors import BpuError
from mmdet_bpu.hbir.passes.conversion import Conversion, Decision


@dataclass(frozen=True)
class Pass:
    """One step of the conversion.

    Attributes:
        name (str): Named after what it does.
        run (Callable): Changes the :class:`Conversion` in place.
        requires (tuple[str]): Passes that must have run before.
    """
    name: str
    run: Callable[[Conversion], None]
    requires: Tuple[str, ...] = ()


def check_order(passes: Sequence[Pass]) -> None:
    """Raise :class:`BpuError` if a pass comes before one that it requires, or is repeated."""
    done: List[str] = []
    for step in passes:
        if step.name in done:
            raise BpuError(f'pass {step.name} is in the pipeline twice')
        missing = [name for name in step.requires if name not in done]
        if missing:
            raise BpuError(f'pass {step.name} must run after {", ".join(missing)}; the order is '
                           f'{" -> ".join(s.name for s in passes)}')
        done.append(step.name)


def run_pipeline(module: ModuleOp, passes: Sequence[Pass],
                 metadata: Optional[dict] = None,
                 decisions: Sequence[Decision] = ()) -> Conversion:
    """Check the order, then run all passes on a fake-quantized module."""
    check_order(passes)
    conversion = Conversion(module, metadata or {}, decisions)
    for step in passes:
        step.run(conversion)
    return conversion
