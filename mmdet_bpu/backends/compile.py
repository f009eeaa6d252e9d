"""One call from an integer program to a ``.hbm``, whoever makes it: :func:`compile_hbm`."""
import time
from dataclasses import replace
from pathlib import Path

from mmdet_bpu.backends import hbdk4
from mmdet_bpu.backends.choice import choose_backend
from mmdet_bpu.compiler.compile import CompileResult, compile_program
from mmdet_bpu.compiler.march import get_march
from mmdet_bpu.compiler.report import ReportPictures
from mmdet_bpu.errors import BpuError
from mmdet_bpu.program.program import Program


def compile_hbm(program: Program, path, march: str, quant_report: list[dict] | None = None,
                backend: str = 'auto', hbir_text: str | None = None,
                pictures: ReportPictures = ReportPictures(),
                camera: dict | None = None) -> CompileResult:
    """Compile a program, with its report beside it.

    With the backend 'hbdk4' the vendor's compiler makes ``path`` from ``hbir_text``; the file for
    the simulator is then written beside it as ``<stem>.sim.hbm``, and so is our report.

    Args:
        program (Program): Integer program.
        path: ``.hbm`` to write.
        march (str): March name.
        quant_report (list[dict] | None): Rows per tensor for the report. Defaults to None.
        backend (str): 'auto' (the vendor's compiler if it is installed and ``hbir_text`` is
            given, else 'sim'), 'sim' or 'hbdk4'. Defaults to 'auto'.
        hbir_text (str | None): Fake-quantized HBIR, which 'hbdk4' compiles. Defaults to None.
        pictures (ReportPictures): What was found in test pictures, for the report. Defaults to none.
        camera (dict | None): ``preprocessing`` of a contract whose network converts a camera's
            planes, which 'hbdk4' inserts. Defaults to None.

    Returns:
        CompileResult: Paths, estimate and findings.

    Raises:
        BpuError: Unknown march or backend, an op that cannot run on the march (with its site), or
            a file that cannot be written.
    """
    started = time.perf_counter()
    get_march(march)
    chosen = choose_backend(backend)
    if backend == 'auto' and hbir_text is None:
        chosen = 'sim'
    path = Path(path)
    if chosen == 'sim':
        return compile_program(program, path, march, quant_report, pictures=pictures)
    if hbir_text is None:
        raise BpuError('backend hbdk4 compiles the fake-quantized HBIR: export it and pass its '
                       'text, or choose the backend sim')
    result = compile_program(program, path.with_suffix('.sim.hbm'), march, quant_report,
                             path.with_suffix(''), pictures)
    vendor_report = hbdk4.compile_for_board(hbir_text, path, march,
                                            perf_dir=path.with_suffix('.perf'), camera=camera)
    return replace(result, path=path, vendor_report=vendor_report, backend='hbdk4',
                   seconds=time.perf_counter() - started)
